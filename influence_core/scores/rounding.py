"""What rounding of stored projections can change of scores, at most.

A row is known as p' = p + d with e = |d / s|, where s are positive scales of
the columns. For a weighted query q (`influence.weight_queries`) the
Cauchy-Schwarz inequality gives |q . d| <= |s q| e. With g the largest
s_k sqrt(weight_k), |sqrt(I(x, x)) - sqrt(I'(x, x))| <= g e in the same way.

Bounds are products of a factor of the query and one of the row, so that an
upper bound of a score is an inner product with one more coordinate:
p' . q + row_factor * query_factor.
"""

import numpy as np

from influence_core import choices

# Norms and factors are sums in float32.
_ROUNDING = 2.0**-14
_ROUNDED_UP = 1 + _ROUNDING
# A cosine errs by 2 at most: no bound needs to be larger.
_LARGEST_COSINE_ERROR = 2.1


def query_factors(
  weighted_queries: np.ndarray,
  weights: np.ndarray,
  column_scales: np.ndarray,
  normalization: choices.Normalization,
) -> np.ndarray:
  """[num_queries] float32 factors of queries.

  Args:
    weighted_queries: [num_queries, projection_dim], from `weight_queries`.
    weights: [projection_dim], from `inverse_eigenvalues`.
    column_scales: [projection_dim], positive.
    normalization: the same as in `weight_queries`.
  """
  scaled = weighted_queries.astype(np.float64) * column_scales
  factors = np.linalg.norm(scaled, axis=1)
  if normalization == 'cosine':
    # (a/n - a'/n') = (a - a')/n + (a'/n') (n' - n)/n, where |a'/n'| <= 1.
    factors = factors + _norm_factor(weights, column_scales)
  return (factors * _ROUNDED_UP).astype(np.float32)


def row_factors(
  errors: np.ndarray,
  self_influences: np.ndarray,
  squared_gradient_norms: np.ndarray,
  *,
  weights: np.ndarray,
  column_scales: np.ndarray,
  normalization: choices.Normalization,
) -> np.ndarray:
  """[num_rows] float32 factors of rows.

  Args:
    errors: [num_rows] e of each.
    self_influences: [num_rows] of the stored rows, not normalised.
    squared_gradient_norms: [num_rows]; used for 'gradient_norm' only.
    weights: [projection_dim], from `inverse_eigenvalues`.
    column_scales: [projection_dim], positive.
    normalization: of the scores.
  """
  if normalization == 'none':
    return errors
  if normalization == 'gradient_norm':
    norms = np.sqrt(squared_gradient_norms)
    # Without a gradient there is no score and no error.
    most = 0.0
  else:
    norm_factor = _norm_factor(weights, column_scales)
    norms = np.sqrt(self_influences) * (1 - _ROUNDING) - norm_factor * errors
    most = _LARGEST_COSINE_ERROR / norm_factor
  positive = norms > 0
  factors = errors / np.where(positive, norms, 1) * _ROUNDED_UP
  factors = np.where(positive, factors, np.where(errors > 0, most, 0))
  if normalization == 'cosine':
    factors = np.minimum(factors, most)
  return factors.astype(np.float32)


def self_influence_bounds(
  errors: np.ndarray,
  self_influences: np.ndarray,
  *,
  weights: np.ndarray,
  column_scales: np.ndarray,
) -> np.ndarray:
  """[num_rows] float32 bounds of the errors of I(x, x), not normalised.

  Args: as of `row_factors`.
  """
  most = _norm_factor(weights, column_scales) * errors.astype(np.float64)
  bounds = most * (2 * np.sqrt(self_influences) + most)
  return (bounds * _ROUNDED_UP).astype(np.float32)


def _norm_factor(weights: np.ndarray, column_scales: np.ndarray) -> float:
  return float((column_scales * np.sqrt(weights)).max())
