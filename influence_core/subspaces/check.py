"""Compares coordinates with those of plain gradients, on a few examples."""

import jax.numpy as jnp
import numpy as np

from influence_core import errors, loss_contract, types
from influence_core.devices import plain_gradient
from influence_core.subspaces import (
  factored_gradients,
  projector as subspace_projector,
  subspace_basis,
)


def check_projector(
  projector: subspace_projector.SubspaceProjector,
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  *,
  basis: subspace_basis.SubspaceBasis,
  selected: types.SelectedParameters,
  features: types.Features,
) -> float | None:
  """Projects a few examples in both ways.

  Args:
    projector: what will do the work.
    per_example_loss: as given to the projector.
    params: pytree of arrays.
    basis: as given to the projector.
    selected: parameters that gradients are taken for, by path.
    features: pytree of [num_examples, ...] arrays, a few real examples.

  Returns:
    The largest difference, relative to |gradient|; None where no gradient is
    finite.

  Raises:
    errors.InputError: The two disagree.
  """
  gradient = plain_gradient.compile_gradient(per_example_loss, params, selected)
  gradients = factored_gradients.FactoredGradients(
    per_example_loss, params, selected=selected, features=features
  )
  projected = projector.project(features).projections
  if projected.ndim > 2:  # Of each token; they add up.
    projected = projected.sum(axis=1)
  differences = []
  examples = loss_contract.single_examples(features)
  for coordinates, one in zip(projected, examples, strict=True):
    plain = gradient(one)
    norm = np.sqrt(
      sum(float(jnp.sum(jnp.square(leaf))) for leaf in plain.values())
    )
    if not np.isfinite(norm):
      continue
    expected = _coordinates(gradients, basis, plain)
    error = np.abs(coordinates - expected).max()
    differences.append(error / max(norm, np.finfo(np.float32).tiny))
  if not differences:
    return None
  tolerance = loss_contract.tolerance(
    any(jnp.finfo(leaf.dtype).bits < 32 for leaf in selected.values())
  )
  worst = float(max(differences))
  if worst > tolerance:
    raise errors.InputError(
      f'coordinates differ from those of plain gradients by {worst:.1e} of '
      f'|gradient|, expected at most {tolerance:.0e}; use --method arnoldi and '
      'report the model as a bug'
    )
  return worst


def _coordinates(gradients, basis, plain) -> np.ndarray:
  """[projection_dim] of one example's gradient, that is there as a whole."""
  parts = []
  for stack in basis.report.stacks:
    own = basis.directions[stack.path]
    inside = np.einsum(
      'brc,brk,bcl->bkl',
      _matrices(gradients, stack, plain),
      own.rows,
      own.columns,
      optimize=True,
    )
    flat = inside.reshape(len(inside), -1)
    parts.append(np.einsum('bi,bin->bn', flat, own.rotation).ravel())
  return np.concatenate(parts)


def _matrices(gradients, stack, plain) -> np.ndarray:
  """[matrix, row, column] float64 of the layers of a stack."""

  def of(path):
    [matrices] = gradients.matrices[path].to_matrices(plain[path][None])
    return np.asarray(matrices, np.float64)

  matrices = of(stack.path)
  if stack.is_transposed:
    matrices = matrices.swapaxes(1, 2)
  if stack.bias is not None:
    last = of(stack.bias).reshape(len(matrices), 1, -1)
    matrices = np.concatenate([matrices, last], axis=1)
  return matrices
