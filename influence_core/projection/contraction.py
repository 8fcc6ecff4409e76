"""Contracts one example's factored gradients with a packed basis.

Everything here is written for one example and vectorised by the caller's
`vmap`. Each function gives the projections [projection_dim] float32 and the
squared norm [] float32 of the gradient of one weight.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
from jax import lax
import jax.numpy as jnp

from influence_core.projection import (
  packing as basis_packing,
  plan as projection_plan,
)

# Products of gradients and eigenvectors are exact float32 products on every
# device; accelerators would round the factors otherwise.
_PRECISION = lax.Precision.HIGHEST


class Contribution(NamedTuple):
  """What one weight adds to the result of an example."""

  projections: jax.Array
  squared_norm: jax.Array

  def plus(self, other: 'Contribution') -> 'Contribution':
    return Contribution(*(a + b for a, b in zip(self, other, strict=True)))


class SiteValues(NamedTuple):
  """Input and output cotangent of a site: [*scan lengths, *shape] each."""

  data: jax.Array
  cotangent: jax.Array


def contract_weight(
  weight: projection_plan.FactoredWeight,
  vectors: jax.Array,
  values: Sequence[SiteValues],
  *,
  projection_dim: int,
  block_positions: int,
  device_axis: str | None = None,
) -> Contribution:
  """Projects the gradient of a factored weight.

  Args:
    weight: the weight.
    vectors: its packed eigenvectors; the device's slice of them with a
      device_axis.
    values: one for each of its sites.
    projection_dim: number of eigenvectors.
    block_positions: looked-up rows of the basis to hold at a time.
    device_axis: mapped axis of the devices that share the packed eigenvectors
      and have different examples; None where each has all.
  """
  form = basis_packing.form_of(weight, projection_dim)
  if form is basis_packing.Form.LOOKUP:
    return _contract_lookups(
      weight, vectors, values, block_positions, device_axis
    )
  left, right = join_factors(weight, values)
  if form is basis_packing.Form.APPLY:

    def contract(left, right):
      return _apply_to_basis(vectors, left, right, projection_dim)
  else:

    def contract(left, right):
      return _contract_blocks(vectors, left, right)

  if device_axis is None:
    return contract(left, right)
  return _contract_slices(contract, left, right, device_axis)


def contract_dense(
  vectors: jax.Array, gradients: Sequence[jax.Array], device_axis: str | None
) -> Contribution:
  """Projects gradients that are there as a whole: [*parameter shape] each."""
  flat = jnp.concatenate([gradient.reshape(-1) for gradient in gradients])
  flat = flat.astype(jnp.float32)
  squared_norm = jnp.sum(flat * flat)
  if device_axis is None:
    return Contribution(_matvec(vectors, flat), squared_norm)
  parts = _exchanged(flat, 0, device_axis)  # [devices, entries of the slice]
  projections = jax.vmap(lambda part: _matvec(vectors, part))(parts)
  return Contribution(_summed(projections, device_axis), squared_norm)


def join_factors(
  weight: projection_plan.FactoredWeight, values: Sequence[SiteValues]
) -> tuple[jax.Array, jax.Array]:
  """Factors of the gradient of a weight, from all its sites.

  Returns:
    [batch, position, row] and [batch, position, column]; the gradient is the
    sum over positions of their outer products.
  """
  factors = [
    site_factors(weight, site, value)
    for site, value in zip(weight.sites, values, strict=True)
  ]
  left, right = (
    jnp.concatenate(parts, axis=1) for parts in zip(*factors, strict=True)
  )
  return left, right


def site_factors(
  weight: projection_plan.FactoredWeight,
  site: projection_plan.Site,
  value: SiteValues,
) -> tuple[jax.Array, jax.Array]:
  """Factors of what one site adds to the gradient of a weight.

  Returns:
    [batch, position, row] and [batch, position, column], with the positions of
    all scan steps.
  """
  left = _over_steps(site.rule.left, value.data, len(site.lengths))
  right = _over_steps(site.rule.right, value.cotangent, len(site.lengths))
  if site.rule.layout == weight.layout:
    return left, right
  return right, left


def _over_steps(function, array, num_scans: int) -> jax.Array:
  """[batch, steps * position, entry] from [*scan lengths, *shape]."""
  steps = array.reshape(-1, *array.shape[num_scans:])
  factors = jax.vmap(function, out_axes=1)(steps)
  return factors.reshape(factors.shape[0], -1, factors.shape[-1])


def _matvec(vectors, entries) -> jax.Array:
  """[projection_dim] float32 from [projection_dim, entries] and [entries]."""
  return jnp.matmul(
    vectors,
    entries.astype(vectors.dtype),
    precision=_PRECISION,
    preferred_element_type=jnp.float32,
  )


def _contract_blocks(
  vectors: jax.Array, left: jax.Array, right: jax.Array
) -> Contribution:
  """Forms the gradient by blocks of rows and contracts each at once.

  Args:
    vectors: [blocks, projection_dim, batch * rows of a block * columns].
    left: [batch, position, row].
    right: [batch, position, column].
  """
  num_blocks, dim, block_size = vectors.shape
  batch, positions, rows = left.shape
  block_rows = block_size // (batch * right.shape[-1])
  missing = num_blocks * block_rows - rows
  left = jnp.pad(left, ((0, 0), (0, 0), (0, missing)))
  left = left.reshape(batch, positions, num_blocks, block_rows)
  left = left.transpose(2, 0, 1, 3)  # [blocks, batch, position, row]
  product = 'btr,btc->brc'
  if batch == 1:  # An axis of size one would make XLA copy once more.
    left, right, product = left[:, 0], right[0], 'tr,tc->rc'

  def add_block(total, block):
    left_block, vectors_block = block
    gradient = jnp.einsum(
      product,
      left_block,
      right,
      precision=_PRECISION,
      preferred_element_type=jnp.float32,
    ).reshape(-1)
    added = Contribution(
      _matvec(vectors_block, gradient), jnp.sum(gradient * gradient)
    )
    return total.plus(added), None

  zero = Contribution(jnp.zeros(dim), jnp.zeros(()))
  return _scan(add_block, zero, (left, vectors))


def _apply_to_basis(
  vectors: jax.Array, left: jax.Array, right: jax.Array, projection_dim: int
) -> Contribution:
  """Contracts the longer factor with the basis, then the shorter one.

  Args:
    vectors: [blocks, batch, row, eigenvectors of a block * columns].
    left: [batch, 1, row].
    right: [batch, 1, column].
    projection_dim: number of eigenvectors.
  """
  left, right = left[:, 0], right[:, 0].astype(jnp.float32)
  batch, columns = right.shape

  def project_block(vectors_block):
    applied = jnp.einsum(
      'br,brk->bk',
      left.astype(vectors.dtype),
      vectors_block.reshape(vectors.shape[1:]),
      precision=_PRECISION,
      preferred_element_type=jnp.float32,
    ).reshape(batch, -1, columns)
    return jnp.sum(applied * right[:, None], axis=(0, 2))

  if len(vectors) == 1:
    projections = project_block(vectors)
  else:
    # Flat, because an axis of size one would make XLA copy all blocks.
    flat = vectors.reshape(len(vectors), -1)
    projections = lax.map(project_block, flat).reshape(-1)
  long, short = (
    jnp.sum(jnp.square(factor.astype(jnp.float32)), axis=1)
    for factor in (left, right)
  )
  return Contribution(projections[:projection_dim], jnp.sum(long * short))


def _contract_lookups(
  weight, vectors, values, block_positions, device_axis
) -> Contribution:
  """Reads the looked-up rows of the basis, [rows, projection_dim, columns]."""
  numbers, rights = [], []
  for site, value in zip(weight.sites, values, strict=True):
    numbers.append(site.rule.row_numbers(value.data))
    right = _over_steps(site.rule.right, value.cotangent, len(site.lengths))
    rights.append(right[0])
  rows = jnp.concatenate(numbers)  # [position]
  right = jnp.concatenate(rights).astype(jnp.float32)  # [position, column]
  num_rows = weight.layout.sizes()[1]
  is_row = (rows >= 0) & (rows < num_rows)
  right = jnp.where(is_row[:, None], right, 0)
  rows = jnp.where(is_row, rows, 0)
  overlaps = jnp.matmul(right, right.T, precision=_PRECISION)
  same_row = rows[:, None] == rows[None, :]
  squared_norm = jnp.sum(jnp.where(same_row, overlaps, 0))

  def contract(rows, right):
    return _contract_rows(vectors, rows, right, block_positions)

  if device_axis is None:
    return Contribution(contract(rows, right), squared_norm)
  rows = lax.all_gather(rows, device_axis)
  projections = jax.vmap(contract)(rows, _exchanged(right, 1, device_axis))
  return Contribution(_summed(projections, device_axis), squared_norm)


def _contract_rows(vectors, rows, right, block_positions) -> jax.Array:
  num_blocks = -(-len(rows) // block_positions)
  missing = num_blocks * block_positions - len(rows)
  rows = jnp.pad(rows, (0, missing)).reshape(num_blocks, -1)
  right = jnp.pad(right, ((0, missing), (0, 0)))
  right = right.reshape(num_blocks, block_positions, -1)

  def add_block(total, block):
    rows_block, right_block = block
    looked_up = vectors.at[rows_block].get(mode='promise_in_bounds')
    added = jnp.einsum(
      'tkc,tc->k',
      looked_up,
      right_block.astype(vectors.dtype),
      precision=_PRECISION,
      preferred_element_type=jnp.float32,
    )
    return total + added, None

  return _scan(add_block, jnp.zeros(vectors.shape[1]), (rows, right))


def _scan(step, carry, blocks):
  """`lax.scan` for the carry alone; a single step without a loop."""
  if jax.tree.leaves(blocks)[0].shape[0] == 1:
    return step(carry, jax.tree.map(lambda leaf: leaf[0], blocks))[0]
  return lax.scan(step, carry, blocks)[0]


def _contract_slices(contract, left, right, device_axis) -> Contribution:
  """`contract` where each device has the basis for a slice of the rows.

  Every device forms its slice of the gradients of all devices' examples; each
  device then receives the sums for its own examples.
  """
  left = _exchanged(left, 2, device_axis)  # [devices, batch, position, rows]
  right = lax.all_gather(right, device_axis)
  return _summed(jax.vmap(contract)(left, right), device_axis)


def _exchanged(array, axis: int, device_axis: str) -> jax.Array:
  """The device's slice along `axis` of all devices' arrays, stacked."""
  devices = lax.axis_size(device_axis)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (0, -array.shape[axis] % devices)
  array = jnp.pad(array, widths)
  shape = (*array.shape[:axis], devices, -1, *array.shape[axis + 1 :])
  return lax.all_to_all(array.reshape(shape), device_axis, axis, 0)


def _summed(parts, device_axis: str):
  """Sums [devices, ...] over the devices; each keeps its own entry."""
  return jax.tree.map(lambda part: lax.psum_scatter(part, device_axis), parts)
