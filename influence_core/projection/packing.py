"""Arranges a basis for the contraction with factored gradients.

Done once per basis, on the host and parameter by parameter, so that the basis
is never held twice. The hot loop then reads the eigenvectors in storage order.
"""

from collections.abc import Callable, Mapping
import dataclasses
import enum
import functools
import math
from typing import Any

import numpy as np

from influence_core import types
from influence_core.projection import plan as projection_plan

# A loop over no more blocks than this copies more slices than the cache saves.
_NUM_BLOCKS_IN_ONE = 3
# Matrix products of other numbers of rows leave vector lanes empty.
_ROW_MULTIPLE = 16


class Form(enum.Enum):
  """How the gradient of a factored weight meets the basis.

  With T positions, n entries of the weight and K eigenvectors, GRADIENT costs
  2 n T + 2 n K and APPLY 2 n T K operations per example, so APPLY is right for
  one position only. LOOKUP reads the looked-up rows of the basis alone.
  """

  GRADIENT = 'gradient formed block by block, then contracted'
  APPLY = 'layer applied to the basis'
  LOOKUP = 'rows of the basis looked up'


def form_of(
  weight: projection_plan.FactoredWeight, projection_dim: int
) -> Form:
  """The cheapest form for a factored weight.

  For one position APPLY and GRADIENT cost the same; the smaller temporary
  decides.
  """
  if weight.num_lookups == len(weight.sites):
    return Form.LOOKUP
  _, rows, columns = weight.layout.sizes()
  if weight.num_positions == 1 and projection_dim < max(rows, columns):
    return Form.APPLY
  return Form.GRADIENT


@dataclasses.dataclass(frozen=True)
class Blocking:
  """How much is done at a time.

  Attributes:
    micro_batch: examples whose gradients are held at once on a device.
    block_bytes: bytes of the largest block of float32 gradients, over the
      whole micro-batch.
    apply_block_bytes: the same for layers applied to the basis and for rows of
      the basis looked up.
  """

  micro_batch: int
  block_bytes: int
  apply_block_bytes: int

  def num_blocks(self, form: Form, size: int, entry_size: int) -> int:
    """Blocks of an axis whose entries are `entry_size` floats per example."""
    is_gradient = form is Form.GRADIENT
    limit = self.block_bytes if is_gradient else self.apply_block_bytes
    entries = limit // (4 * self.micro_batch * entry_size)
    if is_gradient and size <= _NUM_BLOCKS_IN_ONE * entries:
      return 1
    if is_gradient and entries > _ROW_MULTIPLE:
      entries -= entries % _ROW_MULTIPLE
    return math.ceil(size / min(max(entries, 1), size))


@dataclasses.dataclass(frozen=True)
class Packing:
  """Settings of a packed basis.

  Attributes:
    blocking: how much is done at a time.
    dtype: of the packed eigenvectors, float32 or bfloat16.
    group_of: group of projections that each parameter path adds to.
    num_groups: number of groups.
    num_slices: over how many devices each weight is split.
  """

  blocking: Blocking
  dtype: np.dtype
  group_of: Mapping[str, int]
  num_groups: int = 1
  num_slices: int = 1

  def for_examples(self, micro_batch: int) -> 'Packing':
    """The same for another number of examples on each device."""
    blocking = dataclasses.replace(
      self.blocking, micro_batch=micro_batch * self.num_slices
    )
    return dataclasses.replace(self, blocking=blocking)

  def vectors_shape(
    self, weight: projection_plan.FactoredWeight, projection_dim: int
  ) -> tuple[int, ...]:
    """What the flat packed eigenvectors of a factored weight are.

    Returns:
      [blocks of rows, projection_dim, batch * rows of a block * columns] for
      GRADIENT, [blocks of eigenvectors, batch, rows, eigenvectors of a block *
      columns] for APPLY, [rows, projection_dim, columns] for LOOKUP; one size
      may be -1. Rows, or the columns of LOOKUP, are those of a slice.
    """
    batch, rows, columns = weight.layout.sizes()
    form = form_of(weight, projection_dim)
    num_blocks = functools.partial(self.blocking.num_blocks, form)
    match form:
      case Form.GRADIENT:
        rows = math.ceil(rows / self.num_slices)
        return num_blocks(rows, batch * columns), projection_dim, -1
      case Form.APPLY:
        rows = math.ceil(rows / self.num_slices)
        return num_blocks(projection_dim, batch * columns), batch, rows, -1
      case Form.LOOKUP:
        return rows, projection_dim, -1

  def lookup_positions(
    self, weight: projection_plan.FactoredWeight, projection_dim: int
  ) -> int:
    """Positions whose rows of the basis fill a block."""
    _, _, columns = weight.layout.sizes()
    positions = weight.num_positions
    num_blocks = self.blocking.num_blocks(
      Form.LOOKUP, positions, projection_dim * columns
    )
    return math.ceil(positions / num_blocks)


def pack_basis(
  scope: projection_plan.Scope,
  eigenvectors: types.SelectedParameters,
  packing: Packing,
  place: Callable[[Any], Any],
  xp: Any,
) -> dict:
  """The basis as `factored_projection` takes it.

  Args:
    scope: the plan.
    eigenvectors: [projection_dim, *parameter shape] by path.
    packing: settings.
    place: puts an array [num_slices, ...] where it is to stay; called leaf by
      leaf.
    xp: numpy, or jax.numpy to find the shapes.

  Returns:
    A tree of arrays whose structure follows the scopes.
  """
  factored = {
    weight.path: place(
      _packed([weight], eigenvectors, packing, _pack_factored, xp)
    )
    for weight in scope.factored
  }
  dense = {
    group: place(_packed(weights, eigenvectors, packing, _pack_dense, xp))
    for group, weights in dense_groups(scope, packing.group_of).items()
  }
  scopes = {
    scope.places[number]: pack_basis(inner, eigenvectors, packing, place, xp)
    for number, inner in scope.scopes.items()
  }
  return {'factored': factored, 'dense': dense, 'scopes': scopes}


def arrangement(
  scope: projection_plan.Scope, packing: Packing, projection_dim: int
) -> Any:
  """What a packed basis depends on; equal for losses that can share one."""
  factored = [
    (
      weight.path,
      weight.rearrangements,
      weight.layout,
      form_of(weight, projection_dim),
      packing.vectors_shape(weight, projection_dim),
    )
    for weight in scope.factored
  ]
  dense = [(weight.path, weight.rearrangements) for weight in scope.dense]
  inner = {
    scope.places[number]: arrangement(one, packing, projection_dim)
    for number, one in scope.scopes.items()
  }
  return factored, dense, inner


def dense_groups(
  scope: projection_plan.Scope, group_of: Mapping[str, int]
) -> dict[str, list[projection_plan.Weight]]:
  """The dense weights of a scope by group number, as text for tree keys."""
  groups: dict[str, list[projection_plan.Weight]] = {}
  for weight in scope.dense:
    groups.setdefault(str(group_of[weight.path]), []).append(weight)
  return groups


def _packed(weights, eigenvectors, packing: Packing, pack_step, xp):
  """[num_slices, *scan lengths, ...]: `pack_step` for every step of a scan.

  `pack_step` turns a list of [projection_dim, *stored shape], one for each
  weight, into [num_slices, ...].
  """
  parts = [arrange(weight, eigenvectors[weight.path], xp) for weight in weights]
  num_scans = len(weights[0].rearrangements) - 1
  lengths = parts[0].shape[:num_scans]
  steps = [
    pack_step(weights, [vectors[step] for vectors in parts], packing, xp)
    for step in np.ndindex(*lengths)
  ]
  if not lengths:
    return steps[0]
  stacked = xp.stack(steps, axis=1)  # [num_slices, steps, ...]
  return stacked.reshape(stacked.shape[0], *lengths, *stacked.shape[2:])


def arrange(
  weight: projection_plan.Weight, vectors: types.Array, xp
) -> types.Array:
  """[*scan lengths, projection_dim, *stored shape]."""
  for num_scans, steps in enumerate(weight.rearrangements):
    lead = num_scans + 1
    for kind, argument in steps:
      if kind == 'transpose':
        axes = (*range(lead), *(axis + lead for axis in argument))
        vectors = vectors.transpose(axes)
      else:
        vectors = vectors.reshape(*vectors.shape[:lead], *argument)
  return xp.moveaxis(vectors, 0, len(weight.rearrangements) - 1)


def _pack_dense(weights, vectors, packing: Packing, xp) -> types.Array:
  """[num_slices, projection_dim, entries]: all parameters side by side."""
  del weights
  flat = xp.concatenate([part.reshape(len(part), -1) for part in vectors], 1)
  return xp.stack(_split(flat, 1, packing.num_slices, xp)).astype(packing.dtype)


def _pack_factored(weights, vectors, packing: Packing, xp) -> types.Array:
  """[num_slices, entries]: see `Packing.vectors_shape`.

  Flat, because axes of size one make XLA copy what a scan takes slices of.
  """
  [weight], [vectors] = weights, vectors
  form = form_of(weight, len(vectors))
  split_axis = 3 if form is Form.LOOKUP else 2
  matrices = weight.layout.as_matrices(vectors).astype(packing.dtype)
  num_blocks = packing.vectors_shape(weight, len(vectors))[0]
  pack = {
    Form.GRADIENT: _pack_gradient,
    Form.APPLY: _pack_apply,
    Form.LOOKUP: _pack_lookup,
  }[form]
  return xp.stack(
    [
      pack(part, num_blocks, xp).reshape(-1)
      for part in _split(matrices, split_axis, packing.num_slices, xp)
    ]
  )


def _pack_gradient(matrices, num_blocks: int, xp) -> types.Array:
  """From [projection_dim, batch, rows, columns]: blocks of rows."""
  blocks = _split(matrices, 2, num_blocks, xp)
  return xp.stack([block.reshape(len(block), -1) for block in blocks])


def _pack_apply(matrices, num_blocks: int, xp) -> types.Array:
  """Blocks of eigenvectors, each beside its columns."""
  blocks = _split(matrices, 0, num_blocks, xp)
  return xp.stack([block.transpose(1, 2, 0, 3) for block in blocks])


def _pack_lookup(matrices, num_rows: int, xp) -> types.Array:
  """The eigenvectors' entries row by row."""
  del num_rows, xp
  return matrices[:, 0].transpose(1, 0, 2)


def _split(array, axis: int, num_parts: int, xp) -> list[types.Array]:
  """Equal parts of an array, filled up with zeros at the end."""
  if num_parts == 1:
    return [array]
  missing = -array.shape[axis] % num_parts
  widths = [(0, missing if i == axis else 0) for i in range(array.ndim)]
  return xp.split(xp.pad(array, widths), num_parts, axis)
