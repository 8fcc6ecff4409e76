"""Influence from projections: signs, scales, damping and normalisation.

The influence of training example x on query z is
I(x, z) = <grad L(z), H^-1 grad L(x)> = sum_k p_x[k] p_z[k] / eigenvalue_k.

Positive means proponent: repeating or up-weighting x lowers the loss of z and
removing x raises it. Where training averages the loss over N examples,
adding x once more changes the loss of z by -I/N to first order.

References:
  Koh and Liang, "Understanding Black-box Predictions via Influence
  Functions", ICML 2017, equation 2.
  Schioppa et al., "Scaling Up Influence Functions", AAAI 2022, equation 6.
"""

import numpy as np

from influence_core import choices, damping as damping_lib, errors
from influence_core.scores.options import ScoreOptions


def inverse_eigenvalues(
  eigenvalues: np.ndarray,
  options: ScoreOptions,
  mean_curvatures: np.ndarray | float | None = None,
  chosen: np.ndarray | None = None,
) -> np.ndarray:
  """The weight of each projection coordinate in an influence.

  Args:
    eigenvalues: [projection_dim] float64.
    options: damping, policy for negative values and number of pairs used; the
      leading ones have the largest |eigenvalue|.
    mean_curvatures: [projection_dim] float64 of the layer of each column; a
      number, that of all parameters, for a basis of eigenpairs; None where it
      is not known.
    chosen: [projection_dim] bool, which pairs there are to use; None for all.

  Returns:
    [projection_dim] float64; zero for pairs that are not used.

  Raises:
    errors.InputError: More pairs are asked for than the basis has, no pair is
      left, or damping is relative to a mean curvature that is not known, or
      negative.
  """
  eigenvalues = np.asarray(eigenvalues, np.float64)
  order = np.argsort(-np.abs(eigenvalues), kind='stable')
  if chosen is not None:
    order = order[chosen[order]]
  wanted = options.projection_dim
  if wanted is None:
    wanted = len(order)
  if not 1 <= wanted <= len(order):
    raise errors.InputError(
      f'projection_dim is {wanted}, expected 1 to {len(order)}, the pairs to '
      'choose from; ask for less or fit a larger basis'
    )
  positive = eigenvalues > 0
  adjusted = eigenvalues
  if options.negative_eigenvalues == 'abs':
    adjusted = np.abs(eigenvalues)
  elif options.negative_eigenvalues == 'clip' and positive.any():
    adjusted = np.maximum(eigenvalues, eigenvalues[positive].min())
  if options.pair_choice == 'random':
    order = np.random.default_rng(options.pair_seed).permutation(order)
  damping = _damping(options, mean_curvatures)
  # Where damping is all that a direction has, it is still a direction.
  has_layers = isinstance(mean_curvatures, np.ndarray)
  least = 0 if has_layers else np.finfo(np.float64).tiny
  used = (adjusted >= least) & (adjusted + damping > 0)
  used &= np.isin(np.arange(len(used)), order[:wanted])
  if not used.any():
    raise errors.InputError(
      f'none of the {wanted} {options.pair_choice} eigenvalues is usable with '
      f"negative_eigenvalues='{options.negative_eigenvalues}'; try 'abs'"
    )
  denominators = np.where(used, adjusted + damping, 1.0)
  return np.where(used, 1.0 / denominators, 0.0)


def _damping(
  options: ScoreOptions, mean_curvatures: np.ndarray | float | None
) -> np.ndarray | float:
  """What is added to each eigenvalue."""
  if isinstance(mean_curvatures, np.ndarray):
    damping = damping_lib.parse(options.damping, damping_lib.OF_LAYERS)
    return damping.amount(mean_curvatures)
  return damping_lib.parse(options.damping).of_model(mean_curvatures)


def weight_queries(
  query_projections: np.ndarray,
  weights: np.ndarray,
  normalization: choices.Normalization,
) -> np.ndarray:
  """Queries scaled so that a plain inner product gives the influence.

  Args:
    query_projections: [num_queries, projection_dim].
    weights: [projection_dim], from `inverse_eigenvalues`.
    normalization: of the scores.

  Returns:
    [num_queries, projection_dim] float32; with cosine normalisation the
    query's own part of the denominator is already divided out.
  """
  weighted = query_projections.astype(np.float64) * weights
  if normalization == 'cosine':
    norms = np.sqrt(np.sum(query_projections * weighted, axis=1))
    weighted *= _reciprocal(norms)[:, None]
  return weighted.astype(np.float32)


def row_scales(
  self_influences: np.ndarray,
  squared_gradient_norms: np.ndarray,
  normalization: choices.Normalization,
) -> np.ndarray | None:
  """What the scores of each example are multiplied by.

  Args:
    self_influences: [num_examples] float32, not normalised; or of any shape, as
      of several models.
    squared_gradient_norms: of that shape, float32; used for 'gradient_norm'
      only.
    normalization: the same as in `weight_queries`.

  Returns:
    Of that shape, float32, or None for 1.
  """
  if normalization == 'none':
    return None
  if normalization == 'gradient_norm':
    return _reciprocal(np.sqrt(squared_gradient_norms))
  return _reciprocal(np.sqrt(self_influences))


def query_norms(
  weighted_queries: np.ndarray, weights: np.ndarray
) -> np.ndarray:
  """Norms that bound scores: |score| <= norm * sqrt(I(x, x)) * scale.

  By the Cauchy-Schwarz inequality in the inner product that `weights` make.

  Args:
    weighted_queries: [num_queries, projection_dim], from `weight_queries`.
    weights: [projection_dim], from `inverse_eigenvalues`.

  Returns:
    [num_queries] float32.
  """
  used = weights > 0
  squared = np.square(weighted_queries[:, used].astype(np.float64))
  return np.sqrt(squared @ (1 / weights[used])).astype(np.float32)


def self_influence(projections: np.ndarray, weights: np.ndarray) -> np.ndarray:
  """I(x, x) of each example: how much it determines its own loss.

  High values mark examples the model had to memorise: mislabelled, noisy or
  atypical ones.

  Args:
    projections: [num_examples, projection_dim] float32.
    weights: [projection_dim], from `inverse_eigenvalues`.

  Returns:
    [num_examples] float32, >= 0.
  """
  scaled = projections * np.sqrt(weights).astype(np.float32)
  # Row by row, so that the last bits do not depend on the rows beside it.
  return np.vecdot(scaled, scaled)


def normalized_self_influence(
  self_influences: np.ndarray,
  squared_gradient_norms: np.ndarray,
  normalization: choices.Normalization,
) -> np.ndarray:
  """I(x, x) as it is ranked: over |g_x|^2 for 'gradient_norm', else itself.

  Args: as of `row_scales`, of whatever float dtype.
  """
  if normalization != 'gradient_norm':
    return self_influences
  tiny = np.finfo(np.float32).tiny
  return self_influences / np.maximum(squared_gradient_norms, tiny)


def _reciprocal(norms: np.ndarray) -> np.ndarray:
  """1/norm as float32, and 0 for examples without any gradient."""
  safe = np.where(norms > 0, norms, 1.0)
  return np.where(norms > 0, 1.0 / safe, 0.0).astype(np.float32)
