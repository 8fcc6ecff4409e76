"""EK-FAC: a Kronecker-factored curvature with corrected eigenvalues.

For each parameter, as [rows, columns], the eigenvectors of the second moments
of its inputs and of its output gradients stand for those of its block of the
curvature; the eigenvalues are the second moments of gradients turned to them.

References:
  George et al., "Fast Approximate Natural Gradient Descent in a
  Kronecker-factored Eigenbasis", NeurIPS 2018, section 3.
  Grosse et al., "Studying Large Language Model Generalization with Influence
  Functions", 2023, section 3, for influence and for the damping.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import types
from influence_core.subspaces import factored_gradients, factored_sample

# Examples differentiated at a time on each device: each layer's gradients of
# all of them are formed.
_MICROBATCH = 16
# Larger sides keep their own axes as eigenvectors: a diagonal block.
_MAX_SIDE = 4096
# Of the mean eigenvalue of a parameter, as Grosse et al. choose it.
_RELATIVE_DAMPING = 0.1
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
  gradients: factored_gradients.FactoredGradients,
  leaves: types.SelectedParameters,
  sample: types.Features,
) -> dict[str, Block]:
  """The curvature as the second moment of gradients over a sample.

  Args:
    gradients: of a loss whose gradients have the curvature as second moment.
    leaves: all parameters by path.
    sample: pytree of [num_examples, ...] arrays.

  Returns:
    The block of each selected parameter by path.
  """
  examples = factored_sample.FactoredSample(
    gradients, leaves, sample, batch_size=_MICROBATCH
  )
  tables = {path for path, one in gradients.matrices.items() if one.has_lookup}
  moments = _in_float32(examples.mean(functools.partial(_moments, tables), {}))
  blocks = {}
  for path, (rows, columns) in moments.items():
    blocks[path] = Block(
      _eigenvectors(rows), _eigenvectors(columns), jnp.zeros(())
    )
  eigenvalues = _in_float32(
    examples.mean(functools.partial(_squares, blocks), {})
  )
  return {
    path: dataclasses.replace(block, eigenvalues=jnp.asarray(eigenvalues[path]))
    for path, block in blocks.items()
  }


def solve(
  blocks: Mapping[str, Block],
  matrices: Mapping[str, factored_gradients.ParameterMatrices],
  vectors: types.SelectedParameters,
  *,
  damping: float | None,
  l2_weight: float,
) -> dict[str, jax.Array]:
  """(C + damping)^-1 v.

  Args:
    blocks: from `fit`.
    matrices: how parameters are read as matrices.
    vectors: [count, *shape] float32 by path.
    damping: added to every eigenvalue; None for a tenth of the mean eigenvalue
      of each parameter.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2.

  Returns:
    [count, *shape] float32 by path.
  """
  solved = {}
  for path, block in blocks.items():
    eigenvalues = block.eigenvalues + l2_weight
    added = (
      _RELATIVE_DAMPING * jnp.mean(eigenvalues) if damping is None else damping
    )
    turned = block.to_eigenvectors(
      matrices[path].to_matrices(jnp.asarray(vectors[path]))
    )
    # A parameter without any curvature has no gradient in the sample either.
    inverse = jnp.where(eigenvalues + added > 0, 1 / (eigenvalues + added), 0.0)
    found = block.from_eigenvectors(turned * inverse)
    solved[path] = matrices[path].from_matrices(found)
  return solved


def _in_float32(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf.astype(np.float32), tree)


def _moments(tables, factors, mask, constants):
  """Second moments of inputs and of output gradients, by path.

  Args:
    tables: paths of parameters whose rows are looked up, so that no two go
      together.
    factors: of the gradients.
    mask: of the examples.
    constants: none.
  """
  del constants

  def moment(factor, is_diagonal):
    if factor.shape[-1] > _MAX_SIDE or is_diagonal:
      return None
    return jnp.einsum(
      'ebti,ebtj,e->bij', factor, factor, mask, precision=_PRECISION
    )

  return {
    path: (moment(left, path in tables), moment(right, False))
    for path, (left, right) in factors.items()
  }


def _squares(blocks, factors, mask, constants):
  """Squares of gradients in the coordinates of the eigenvectors, by path."""
  del constants

  def squares(block, left, right):
    formed = jnp.einsum('ebtr,ebtc->ebrc', left, right, precision=_PRECISION)
    turned = block.to_eigenvectors(formed)
    return jnp.einsum('ebrc,ebrc,e->brc', turned, turned, mask)

  return {path: squares(blocks[path], *pair) for path, pair in factors.items()}


def _eigenvectors(moment: np.ndarray | None) -> jax.Array | None:
  """[batch, size, size] eigenvectors as columns."""
  if moment is None:
    return None
  _, vectors = np.linalg.eigh(moment.astype(np.float64))
  return jnp.asarray(vectors, jnp.float32)
