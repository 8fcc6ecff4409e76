"""What is computed of gradients in factored form, without forming most of them.

Factors are [example, batch, position, row] and [example, batch, position,
column]; the gradient of each matrix of the stack is the sum over positions of
their outer products.
"""

import jax
from jax import lax
import jax.numpy as jnp

_PRECISION = lax.Precision.HIGHEST
# Gradients that are formed for all examples at once.
_FORMED_BYTES = 1 << 26


def coordinates(
  left: jax.Array, right: jax.Array, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  """U^T G V of each matrix, [example, batch, k * l].

  Args:
    left: see above.
    right: see above.
    rows: U, [batch, row, k].
    columns: V, [batch, column, l].
  """
  turned_left = _product('ebtr,brk->ebtk', left, rows)
  turned_right = _product('ebtc,bcl->ebtl', right, columns)
  found = _product('ebtk,ebtl->ebkl', turned_left, turned_right)
  return found.reshape(*found.shape[:2], -1)


def squared_norms(left: jax.Array, right: jax.Array) -> jax.Array:
  """|G|^2 of each matrix, [example, batch] float32."""
  _, _, positions, num_rows = left.shape
  num_columns = right.shape[-1]
  if positions == 1:
    return _squares(left[..., 0, :]) * _squares(right[..., 0, :])
  if positions * (num_rows + num_columns) < num_rows * num_columns:
    overlaps = _product('ebtr,ebsr->ebts', left, left)
    overlaps *= _product('ebtc,ebsc->ebts', right, right)
    return overlaps.sum(axis=(2, 3))

  def of_example(factors):
    return jnp.square(_product('btr,btc->brc', *factors)).sum(axis=(1, 2))

  formed_bytes = 4 * left.shape[0] * left.shape[1] * num_rows * num_columns
  over_examples = jax.vmap if formed_bytes <= _FORMED_BYTES else _one_by_one
  return over_examples(of_example)((left, right))


def lookup_norms(numbers: jax.Array, right: jax.Array) -> jax.Array:
  """|G|^2 of tables that rows were looked up in, [example, batch] float32.

  Args:
    numbers: [example, batch, position, 1] float32 of the rows.
    right: [example, batch, position, column].
  """
  overlaps = _product('ebtc,ebsc->ebts', right, right)
  return jnp.sum(overlaps * (numbers == numbers.swapaxes(2, 3)), axis=(2, 3))


def row_moments(
  left: jax.Array,
  right: jax.Array,
  mask: jax.Array,
  directions: jax.Array | None = None,
) -> jax.Array:
  """Sum over examples of G G^T, [batch, row, row], or of (G G^T) D.

  Args:
    left: see above.
    right: see above.
    mask: [example] weights.
    directions: D, [batch, row, count]; None for the whole matrix.
  """
  _, _, positions, num_rows = left.shape
  num_columns = right.shape[-1]
  width = num_rows if directions is None else directions.shape[-1]
  formed_cost = num_rows * num_columns * (positions + 2 * width)
  overlap_cost = positions * (
    positions * (num_columns + width) + 2 * num_rows * width
  )
  weights = mask[:, None, None, None]
  if formed_cost <= overlap_cost:
    gradients = _product('ebtr,ebtc->ebrc', left, right)
    if directions is None:
      return _product('ebrc,ebsc->brs', gradients * weights, gradients)
    turned = _product('ebrc,brd->ebcd', gradients, directions)
    return _product('ebrc,ebcd->brd', gradients * weights, turned)
  overlaps = _product('ebtc,ebsc->ebts', right, right) * weights
  turned = left
  if directions is not None:
    turned = _product('ebtr,brd->ebtd', left, directions)
  turned = _product('ebts,ebsd->ebtd', overlaps, turned)
  return _product('ebtr,ebtd->brd', left, turned)


def _one_by_one(function):
  return lambda factors: lax.map(function, factors)


def _squares(vectors: jax.Array) -> jax.Array:
  return jnp.sum(jnp.square(vectors.astype(jnp.float32)), axis=-1)


def _product(subscripts: str, *arrays: jax.Array) -> jax.Array:
  return jnp.einsum(
    subscripts,
    *arrays,
    precision=_PRECISION,
    preferred_element_type=jnp.float32,
  )
