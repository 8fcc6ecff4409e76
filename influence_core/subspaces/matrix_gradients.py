"""What is computed of the gradient of one example, without forming most of it.

A weight is read as a stack of matrices, and its gradient in each as

  G = sum_t left[t] right[t]^T  +  sum_s e(number[s]) looked_up[s]^T  +  formed

of a matrix product's inputs and cotangents, of rows that were looked up, and of
what is there as a whole; most weights have one of the three. Everything is
written for one example and one matrix and vectorised over the others. Where
there are more positions than a matrix has rows and columns it is formed, else
the factors are worked with: whichever takes fewer operations.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

_PRECISION = lax.Precision.HIGHEST


class MatrixGradient(NamedTuple):
  """The gradient of one example in the matrices of a weight.

  Attributes:
    left: [matrix, position, row]; None without products.
    right: [matrix, position, column].
    numbers: [1, position] int32 of rows looked up, out of range for none; None
      without lookups, and only with a single matrix.
    looked_up: [1, position, column].
    formed: [matrix, row, column]; None where factors are all there is.
  """

  left: jax.Array | None = None
  right: jax.Array | None = None
  numbers: jax.Array | None = None
  looked_up: jax.Array | None = None
  formed: jax.Array | None = None

  def transposed(self) -> 'MatrixGradient':
    """That of the transposed matrices; there must be no lookups."""
    formed = self.formed
    return MatrixGradient(
      self.right,
      self.left,
      formed=None if formed is None else formed.swapaxes(1, 2),
    )

  def with_bias(self) -> 'MatrixGradient':
    """With a last row for the bias, whose input is 1 at every position."""
    assert self.left is not None
    ones = jnp.ones((*self.left.shape[:2], 1), self.left.dtype)
    return self._replace(left=jnp.concatenate([self.left, ones], axis=2))

  def matrices(self, num_rows: int) -> jax.Array:
    """[matrix, row, column] float32 with `num_rows` rows."""
    return _over_matrices(lambda one: _whole(one, num_rows), self)


def coordinates(
  gradient: MatrixGradient, rows: jax.Array, columns: jax.Array
) -> jax.Array:
  """U^T G V of each matrix, [matrix, k * l] float32.

  Args:
    gradient: of one example.
    rows: U, [matrix, row, k].
    columns: V, [matrix, column, l].
  """

  def of_matrix(arrays):
    one, u, v = arrays
    parts = []
    if one.left is not None:
      if _is_formed(one) and _is_turned_whole(one, u, v):
        parts.append(_product(u.T, _product(_formed(one), v)))
      else:
        left, right = _product(one.left, u), _product(one.right, v)
        parts.append(_product(left.T, right))
    if one.numbers is not None:
      left = jnp.asarray(u).at[one.numbers].get(mode='fill', fill_value=0)
      parts.append(_product(left.T, _product(one.looked_up, v)))
    if one.formed is not None:
      parts.append(_product(u.T, _product(one.formed, v)))
    return _added(parts).reshape(-1)

  return _over_matrices(of_matrix, (gradient, rows, columns))


def squared_norms(gradient: MatrixGradient) -> jax.Array:
  """|G|^2 of each matrix, [matrix] float32."""

  def of_matrix(one):
    parts = []
    if one.left is not None:
      parts.append(_product_norm(one))
    if one.numbers is not None:
      overlaps = _product(one.looked_up, one.looked_up.T)
      same_row = one.numbers[:, None] == one.numbers[None]
      parts.append(jnp.sum(jnp.where(same_row, overlaps, 0)))
    if one.left is not None and one.numbers is not None:
      # <e(n) b^T, left right^T> = left[n] <b, right>.
      taken = one.left.at[:, one.numbers].get(mode='fill', fill_value=0)
      overlaps = _product(one.right, one.looked_up.T)
      parts.append(2 * jnp.sum(overlaps * taken))
    if one.formed is not None:
      parts.append(_squares(one.formed))
    return _added(parts)

  return _over_matrices(of_matrix, gradient)


def row_moments(
  gradient: MatrixGradient, directions: jax.Array | None = None
) -> jax.Array:
  """G G^T of each matrix, [matrix, row, row], or (G G^T) D, both float32.

  Args:
    gradient: of one example; without lookups.
    directions: D, [matrix, row, count]; None for the whole matrix.
  """

  def of_matrix(arrays):
    one, turning = arrays
    if one.left is None:
      return _product(one.formed, _times(one.formed.T, turning))
    positions, num_rows = one.left.shape
    num_columns = one.right.shape[1]
    width = num_rows if turning is None else turning.shape[1]
    formed_cost = num_rows * num_columns * (positions + 2 * width)
    overlap_cost = positions * (
      positions * (num_columns + width) + 2 * num_rows * width
    )
    if formed_cost <= overlap_cost:
      formed = _formed(one)
      return _product(formed, _times(formed.T, turning))
    overlaps = _product(one.right, one.right.T)
    return _product(one.left.T, _product(overlaps, _times(one.left, turning)))

  return _over_matrices(of_matrix, (gradient, directions))


def _product_norm(one) -> jax.Array:
  """|sum_t left[t] right[t]^T|^2 of one matrix."""
  if len(one.left) == 1:
    return _squares(one.left) * _squares(one.right)
  if _is_formed(one):
    return _squares(_formed(one))
  overlaps = _product(one.left, one.left.T) * _product(one.right, one.right.T)
  return jnp.sum(overlaps)


def _is_formed(one) -> bool:
  """Whether forming the matrix is cheaper than all overlaps of positions."""
  positions, num_rows = one.left.shape
  num_columns = one.right.shape[1]
  return num_rows * num_columns <= positions * (num_rows + num_columns)


def _is_turned_whole(one, u: jax.Array, v: jax.Array) -> bool:
  """Whether turning the formed matrix is cheaper than turning its factors."""
  num_rows, num_columns = len(u), len(v)
  k, l = u.shape[1], v.shape[1]  # noqa: E741
  whole = num_rows * l * (num_columns + k)
  return whole < len(one.left) * (num_rows * k + num_columns * l + k * l)


def _formed(one) -> jax.Array:
  return _product(one.left.T, one.right)


def _whole(one, num_rows: int) -> jax.Array:
  parts = []
  if one.left is not None:
    parts.append(_formed(one))
  if one.numbers is not None:
    empty = jnp.zeros((num_rows, one.looked_up.shape[1]))
    rows = one.looked_up.astype(jnp.float32)
    parts.append(empty.at[one.numbers].add(rows, mode='drop'))
  if one.formed is not None:
    parts.append(one.formed.astype(jnp.float32))
  return _added(parts)


def _added(parts: Sequence[jax.Array]) -> jax.Array:
  total, *others = parts
  for part in others:
    total += part
  return total


def _times(array: jax.Array, other: jax.Array | None) -> jax.Array:
  return array if other is None else _product(array, other)


def _squares(array: jax.Array) -> jax.Array:
  return jnp.sum(jnp.square(array.astype(jnp.float32)))


def _product(one: jax.Array, other: jax.Array) -> jax.Array:
  return jnp.matmul(
    one, other, precision=_PRECISION, preferred_element_type=jnp.float32
  )


def _over_matrices(function: Callable[[Any], jax.Array], arrays: Any):
  """`function` of each matrix; without an axis of size one, which costs."""
  if len(jax.tree.leaves(arrays)[0]) == 1:
    return function(jax.tree.map(lambda leaf: leaf[0], arrays))[None]
  return jax.vmap(function)(arrays)
