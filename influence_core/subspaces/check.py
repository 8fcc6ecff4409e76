"""Compares coordinates with those of plain gradients, on a few examples."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, loss_contract, types
from influence_core.devices import plain_gradient
from influence_core.subspaces import (
  factored_gradients,
  layers as layers_lib,
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
  found = [
    # No name for it here: one gradient is held at a time.
    _difference(gradients, basis, gradient(one), coordinates)
    for coordinates, one in zip(
      projected, loss_contract.single_examples(features), strict=True
    )
  ]
  differences = [x for x in found if x is not None]
  if not differences:
    return None
  tolerance = loss_contract.tolerance(
    any(jnp.finfo(leaf.dtype).bits < 32 for leaf in selected.values())
  )
  worst = max(differences)
  if worst > tolerance:
    raise errors.InputError(
      f'coordinates differ from those of plain gradients by {worst:.1e} of '
      f'|gradient|, expected at most {tolerance:.0e}; use --method arnoldi and '
      'report the model as a bug'
    )
  return worst


def _difference(
  gradients: factored_gradients.FactoredGradients,
  basis: subspace_basis.SubspaceBasis,
  plain: Mapping[str, jax.Array],
  coordinates: np.ndarray,
) -> float | None:
  """Of one example, relative to |gradient|; None where that is not finite."""
  norm = float(_norm(plain))
  if not np.isfinite(norm):
    return None
  expected = _coordinates(gradients, basis, plain)
  error = float(np.abs(coordinates - expected).max())
  return error / max(norm, float(np.finfo(np.float32).tiny))


@jax.jit
def _norm(plain: Mapping[str, jax.Array]) -> jax.Array:
  wide = (leaf.astype(jnp.float32) for leaf in plain.values())
  return jnp.sqrt(sum(jnp.sum(jnp.square(leaf)) for leaf in wide))


def _coordinates(
  gradients: factored_gradients.FactoredGradients,
  basis: subspace_basis.SubspaceBasis,
  plain: Mapping[str, jax.Array],
) -> np.ndarray:
  """[projection_dim] of one example's gradient, that is there as a whole."""
  parts = []
  for stack in basis.report.stacks:
    directions = zip(*basis.directions[stack.path], strict=True)
    for matrix, (rows, columns, rotation) in zip(
      _matrices(gradients, stack, plain), directions, strict=True
    ):
      parts.append((rows.T @ matrix @ columns).ravel() @ rotation)
  return np.concatenate(parts)


def _matrices(
  gradients: factored_gradients.FactoredGradients,
  stack: layers_lib.LayerStack,
  plain: Mapping[str, jax.Array],
) -> Iterator[np.ndarray]:
  """[row, column] float64 of each layer of a stack, one at a time."""

  def of(path: str) -> np.ndarray:
    read = gradients.matrices[path].to_matrices
    # Compiled, as every step alone would copy the whole parameter.
    return np.asarray(jax.jit(lambda leaf: read(leaf[None])[0])(plain[path]))

  matrices = of(stack.path)
  biases = None
  if stack.bias is not None:
    biases = of(stack.bias).reshape(len(matrices), 1, -1)
  for number, matrix in enumerate(matrices):
    wide = matrix.astype(np.float64)
    if stack.is_transposed:
      wide = wide.T
    if biases is not None:
      wide = np.concatenate([wide, biases[number]])
    yield wide
