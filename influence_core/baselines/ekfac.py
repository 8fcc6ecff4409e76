"""EK-FAC: a Kronecker-factored curvature with corrected eigenvalues.

For each parameter, as [rows, columns], the eigenvectors of the second moments
of its inputs and of its output gradients stand for those of its block of the
curvature; the eigenvalues are the second moments of gradients turned to them.

References:
  George et al., "Fast Approximate Natural Gradient Descent in a
  Kronecker-factored Eigenbasis", NeurIPS 2018, section 3.
  Grosse et al., "Studying Large Language Model Generalization with Influence
  Functions", 2023, section 3, for influence; `damping` for its damping.
"""

from collections.abc import Iterator, Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import types
from influence_core.damping import Damping
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  matrix_gradients,
  parameter_matrices,
)

# Larger sides keep their own axes as eigenvectors: a diagonal block.
_MAX_SIDE = 4096
_PRECISION = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class Block:
  """The curvature of a parameter.

  Attributes:
    rows: [batch, rows, rows] float32 eigenvectors as columns; None for axes.
    columns: [batch, columns, columns], likewise.
    eigenvalues: [batch, rows, columns] float32.
  """

  rows: jax.Array | None
  columns: jax.Array | None
  eigenvalues: jax.Array

  def to_eigenvectors(self, matrices: jax.Array) -> jax.Array:
    """[..., batch, rows, columns] in the coordinates of the eigenvectors."""
    if self.rows is not None:
      matrices = jnp.einsum(
        'brk,...brc->...bkc', self.rows, matrices, precision=_PRECISION
      )
    if self.columns is not None:
      matrices = jnp.einsum(
        '...bkc,bcl->...bkl', matrices, self.columns, precision=_PRECISION
      )
    return matrices

  def from_eigenvectors(self, matrices: jax.Array) -> jax.Array:
    """The inverse of `to_eigenvectors`."""

    def turned(vectors):
      return None if vectors is None else vectors.swapaxes(1, 2)

    back = Block(turned(self.rows), turned(self.columns), self.eigenvalues)
    return back.to_eigenvectors(matrices)


def fit(
  sample: factored_sample.FactoredSample,
) -> dict[str, Block]:
  """The curvature as the second moment of gradients over a sample.

  Args:
    sample: of a loss whose gradients have the curvature as second moment.

  Returns:
    The block of each selected parameter by path.
  """
  moments = sample.mean('moments', _moments(sample.gradients), {})
  sides = {
    path: {
      side: _eigenvectors(moments.get(f'{path}/{side}'))
      for side in ('rows', 'columns')
    }
    for path in sample.gradients.matrices
  }
  eigenvalues = sample.mean('squares', _squares(sample.gradients), sides)
  return {
    path: Block(**own, eigenvalues=jnp.asarray(eigenvalues[path], jnp.float32))
    for path, own in sides.items()
  }


def solve(
  blocks: Mapping[str, Block],
  matrices: Mapping[str, parameter_matrices.ParameterMatrices],
  vectors: types.SelectedParameters,
  *,
  damping: Damping,
  l2_weight: float,
) -> dict[str, jax.Array]:
  """(C + damping)^-1 v.

  Args:
    blocks: from `fit`.
    matrices: how parameters are read as matrices.
    vectors: [count, *shape] float32 by path.
    damping: added to every eigenvalue; a relative one is of the mean eigenvalue
      of each matrix, such as a layer of a scan, by itself.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2.

  Returns:
    [count, *shape] float32 by path.
  """
  # What the loss does not use has neither curvature nor gradient.
  solved = {path: jnp.zeros_like(vectors[path]) for path in vectors}
  for path, block in blocks.items():
    eigenvalues = block.eigenvalues + l2_weight
    means = jnp.mean(eigenvalues, axis=(1, 2), keepdims=True)
    damped = eigenvalues + damping.amount(means)
    turned = block.to_eigenvectors(
      matrices[path].to_matrices(jnp.asarray(vectors[path]))
    )
    # A parameter without any curvature has no gradient in the sample either.
    inverse = jnp.where(damped > 0, 1 / damped, 0.0)
    found = block.from_eigenvectors(turned * inverse)
    shape = vectors[path].shape[1:]
    solved[path] = matrices[path].from_matrices(found, shape)
  return solved


def _moments(
  gradients: factored_gradients.FactoredGradients,
) -> factored_sample.Total:
  """Second moments of inputs and of output gradients, by path."""

  def statistic(path, gradient, constants):
    del path, constants
    return {
      side: jnp.einsum('brt,bst->brs', factor, factor, precision=_PRECISION)
      for side, factor in _sides(gradient)
      if factor.shape[1] <= _MAX_SIDE
    }

  def total(leaves, features, mask, constants):
    found = gradients.total(leaves, features, statistic, constants, mask=mask)
    return {
      f'{path}/{side}': sums
      for path, own in found.items()
      for side, sums in own.items()
    }

  return total


def _sides(
  gradient: matrix_gradients.MatrixGradient,
) -> Iterator[tuple[str, jax.Array]]:
  """What second moments are taken of, [matrix, side, position]."""
  if gradient.formed is not None:
    yield 'rows', gradient.formed
    yield 'columns', gradient.formed.swapaxes(1, 2)
    return
  # No two rows that are looked up go together: they keep their own axes.
  if gradient.left is not None and gradient.numbers is None:
    yield 'rows', gradient.left.swapaxes(1, 2)
  cotangents = [
    factor
    for factor in (gradient.right, gradient.looked_up)
    if factor is not None
  ]
  yield 'columns', jnp.concatenate(cotangents, axis=1).swapaxes(1, 2)


def _squares(
  gradients: factored_gradients.FactoredGradients,
) -> factored_sample.Total:
  """Squares of gradients in the coordinates of the eigenvectors, by path."""

  def statistic(path, gradient, sides):
    _, num_rows, num_columns = gradients.matrices[path].sizes
    rows, columns = sides['rows'], sides['columns']
    if rows is not None and columns is not None:
      # Without forming it, where that takes fewer operations.
      turned = matrix_gradients.coordinates(gradient, rows, columns)
      return jnp.square(turned.reshape(-1, num_rows, num_columns))
    block = Block(**sides, eigenvalues=jnp.zeros(()))
    return jnp.square(block.to_eigenvectors(gradient.matrices(num_rows)))

  def total(leaves, features, mask, sides):
    return gradients.total(leaves, features, statistic, sides, mask=mask)

  return total


def _eigenvectors(moment: np.ndarray | None) -> jax.Array | None:
  """[batch, size, size] eigenvectors as columns."""
  if moment is None:
    return None
  _, vectors = np.linalg.eigh(moment)
  return jnp.asarray(vectors, jnp.float32)
