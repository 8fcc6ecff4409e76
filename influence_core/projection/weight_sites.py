"""Operations whose per-example weight gradient is known in factored form.

A *site* is one equation of a traced loss that is linear in a weight W and
mixes it with data: a matrix product, a convolution or a row lookup. With W
read as a stack of matrices [batch, rows, columns], the gradient of one example
at a site is a sum over positions t (tokens, pixels)

  G[e] = sum_t left[e, t] right[e, t]^T            [rows, columns]

of products of the input of the site and the cotangent of its output. The
gradient is never needed as a whole: see `contraction`.
"""

import dataclasses
import math

import jax
from jax import lax
from jax.extend import core as jax_core
import jax.numpy as jnp
import numpy as np

# A lookup's row numbers travel as float32, which holds integers exactly up to
# this many rows.
_MAX_ROWS_OF_A_LOOKUP = 2**24


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a weight is read as a stack of matrices.

  Attributes:
    shape: shape of the weight, after its output axis is split into groups for
      a grouped convolution.
    batch_axes: axes of `shape` that the matrices are stacked along.
    row_axes: axes that make the rows.
    column_axes: axes that make the columns.
  """

  shape: tuple[int, ...]
  batch_axes: tuple[int, ...]
  row_axes: tuple[int, ...]
  column_axes: tuple[int, ...]

  def sizes(self) -> tuple[int, int, int]:
    """(batch, rows, columns)."""
    batch, rows, columns = (
      math.prod(self.shape[axis] for axis in axes)
      for axes in (self.batch_axes, self.row_axes, self.column_axes)
    )
    return batch, rows, columns

  def transposed(self) -> 'Layout':
    """The layout with rows and columns exchanged."""
    return dataclasses.replace(
      self, row_axes=self.column_axes, column_axes=self.row_axes
    )

  def as_matrices(self, vectors: jax.Array) -> jax.Array:
    """[num_vectors, *weight shape] as [num_vectors, batch, rows, columns]."""
    split = vectors.reshape(len(vectors), *self.shape)
    axes = (*self.batch_axes, *self.row_axes, *self.column_axes)
    ordered = split.transpose(0, *(axis + 1 for axis in axes))
    return ordered.reshape(len(vectors), *self.sizes())


@dataclasses.dataclass(frozen=True)
class Matmul:
  """A `dot_general` between a weight and data.

  Attributes:
    layout: rows are the contracted axes of the weight, columns its free axes.
    data_position: which operand is the data.
    num_positions: rows of data that the weight is applied to.
    data_axes: permutation of the data to [batch, position, row].
    output_axes: permutation of the output to [batch, position, column].
  """

  layout: Layout
  data_position: int
  num_positions: int
  data_axes: tuple[int, ...]
  output_axes: tuple[int, ...]

  def left(self, data: jax.Array) -> jax.Array:
    """Input of the site, [batch, position, row]."""
    batch, rows, _ = self.layout.sizes()
    return data.transpose(self.data_axes).reshape(batch, -1, rows)

  def right(self, cotangent: jax.Array) -> jax.Array:
    """Cotangent of the output, [batch, position, column]."""
    batch, _, columns = self.layout.sizes()
    return cotangent.transpose(self.output_axes).reshape(batch, -1, columns)


@dataclasses.dataclass(frozen=True)
class Convolution:
  """A `conv_general_dilated` of data with a weight.

  Attributes:
    layout: one matrix per feature group; rows are the window's offsets times
      the input channels of a group, columns its output channels.
    params: parameters of the equation.
    window: spatial shape of the weight.
    output_window: spatial shape of the output.
    num_positions: examples times spatial positions of the output.
  """

  layout: Layout
  params: dict
  window: tuple[int, ...]
  output_window: tuple[int, ...]
  num_positions: int

  data_position = 0

  def left(self, data: jax.Array) -> jax.Array:
    """The patches under each window position, [group, position, row]."""
    spec = self.params['dimension_numbers'].lhs_spec
    groups = self.params['feature_group_count']
    image = data.transpose(spec[0], *spec[2:], spec[1])
    edges = zip(
      self.params['padding'], self.params['lhs_dilation'], strict=True
    )
    padding = [(low, high, dilation - 1) for (low, high), dilation in edges]
    zero = jnp.zeros((), image.dtype)
    image = lax.pad(image, zero, [(0, 0, 0), *padding, (0, 0, 0)])
    patches = jnp.stack(
      [self._shifted(image, offset) for offset in np.ndindex(*self.window)], -2
    )  # [example, *output_window, offset, channel]
    _, rows, _ = self.layout.sizes()
    patches = patches.reshape(
      self.num_positions, math.prod(self.window), groups, -1
    )
    return patches.transpose(2, 0, 1, 3).reshape(groups, -1, rows)

  def _shifted(self, image, offset):
    """The pixel that every window has at one offset."""
    strides = self.params['window_strides']
    starts = [
      o * d for o, d in zip(offset, self.params['rhs_dilation'], strict=True)
    ]
    limits = [
      start + (size - 1) * stride + 1
      for start, size, stride in zip(
        starts, self.output_window, strides, strict=True
      )
    ]
    return lax.slice(
      image,
      (0, *starts, 0),
      (image.shape[0], *limits, image.shape[-1]),
      (1, *strides, 1),
    )

  def right(self, cotangent: jax.Array) -> jax.Array:
    """Cotangent of the output, [group, position, column]."""
    spec = self.params['dimension_numbers'].out_spec
    groups, _, columns = self.layout.sizes()
    rows = cotangent.transpose(spec[0], *spec[2:], spec[1])
    return rows.reshape(-1, groups, columns).transpose(1, 0, 2)


@dataclasses.dataclass(frozen=True)
class Lookup:
  """Rows of a weight taken by number: an embedding.

  Attributes:
    layout: one matrix, a row for every entry of the table.
    clips: whether numbers out of range mean the nearest row; else they mean
      no row.
    num_positions: number of lookups.
  """

  layout: Layout
  clips: bool
  num_positions: int

  data_position = 1

  def row_numbers(self, data: jax.Array) -> jax.Array:
    """The row of each position, [position] int32."""
    numbers = data.reshape(-1).astype(jnp.int32)
    last = self.layout.shape[0] - 1
    return jnp.clip(numbers, 0, last) if self.clips else numbers

  def left(self, data: jax.Array) -> jax.Array:
    """One-hot rows, [1, position, row] float32."""
    _, rows, _ = self.layout.sizes()
    return jax.nn.one_hot(self.row_numbers(data), rows)[None]

  def right(self, cotangent: jax.Array) -> jax.Array:
    """Cotangent of the rows, [1, position, column]."""
    return cotangent.reshape(1, self.num_positions, -1)


SiteRule = Matmul | Convolution | Lookup


def site_rule(
  equation: jax_core.JaxprEqn, weight_position: int, axes: tuple[int, ...]
) -> SiteRule | None:
  """The rule for an equation that takes a weight, None where there is none.

  Args:
    equation: an equation with the weight as one operand and data as the
      others.
    weight_position: which operand is the weight.
    axes: the axis of the stored weight that each axis of the operand is.
  """
  match equation.primitive.name:
    case 'dot_general':
      return _matmul(equation, weight_position, axes)
    case 'conv_general_dilated' if weight_position == 1:
      return _convolution(equation, axes)
    case 'gather' if weight_position == 0:
      return _lookup(equation, axes)
  return None


def _matmul(equation, weight_position, axes) -> Matmul:
  """The rule for a `dot_general`.

  Three systems of axes meet: those of the two operands, which
  `dimension_numbers` speaks of, and those of the weight as it is stored, which
  `axes` leads to. The output has the batch axes first, then the free axes of
  the first operand, then those of the second.

  For y = x @ W of x [b, t, d] with W [d, k], d is contracted: the weight's axes
  are rows (0,) and columns (1,), the data's [position, row] = (0, 1, 2) with
  b * t positions, the output's [position, column] = (0, 1, 2). Were W stored as
  [k, d] and transposed before, `axes` would be (1, 0), rows (1,) and columns
  (0,). For heads, einsum('hbd,hdk->hbk'), h is a batch axis: of the layout
  (0,), of data and output the first.
  """
  contracted, batch = equation.params['dimension_numbers']
  data_position = 1 - weight_position
  data = equation.invars[data_position].aval
  weight = equation.invars[weight_position].aval

  def paired(dimensions):
    """(weight axis, data axis, place in the list), by stored weight axis."""
    pairs = zip(
      dimensions[weight_position], dimensions[data_position], strict=True
    )
    places = [(*pair, place) for place, pair in enumerate(pairs)]
    return sorted(places, key=lambda pair: axes[pair[0]])

  contracted_pairs, batch_pairs = paired(contracted), paired(batch)
  weight_taken = {pair[0] for pair in contracted_pairs + batch_pairs}
  data_taken = {pair[1] for pair in contracted_pairs + batch_pairs}
  weight_free = [a for a in range(weight.ndim) if a not in weight_taken]
  data_free = [a for a in range(data.ndim) if a not in data_taken]
  num_batch = len(batch_pairs)
  data_starts, weight_starts = (
    (num_batch, num_batch + len(data_free))
    if data_position == 0
    else (num_batch + len(weight_free), num_batch)
  )
  columns = sorted(weight_free, key=lambda axis: axes[axis])
  stored_shape = [0] * weight.ndim
  for axis, size in enumerate(weight.shape):
    stored_shape[axes[axis]] = size
  layout = Layout(
    shape=tuple(stored_shape),
    batch_axes=tuple(axes[pair[0]] for pair in batch_pairs),
    row_axes=tuple(axes[pair[0]] for pair in contracted_pairs),
    column_axes=tuple(axes[axis] for axis in columns),
  )
  return Matmul(
    layout=layout,
    data_position=data_position,
    num_positions=math.prod(data.shape[axis] for axis in data_free),
    data_axes=(
      *(pair[1] for pair in batch_pairs),
      *data_free,
      *(pair[1] for pair in contracted_pairs),
    ),
    output_axes=(
      *(pair[2] for pair in batch_pairs),
      *(data_starts + place for place in range(len(data_free))),
      *(weight_starts + weight_free.index(axis) for axis in columns),
    ),
  )


def _convolution(equation, axes) -> Convolution | None:
  params = equation.params
  if params['batch_group_count'] != 1 or axes != tuple(range(len(axes))):
    return None
  weight = equation.invars[1].aval
  output = equation.outvars[0].aval
  out_axis, in_axis, *window_axes = params['dimension_numbers'].rhs_spec
  batch_axis, _, *spatial_axes = params['dimension_numbers'].out_spec
  groups = params['feature_group_count']
  shape = list(weight.shape)
  shape[out_axis : out_axis + 1] = [groups, shape[out_axis] // groups]

  def after_split(axis):
    return axis + (axis > out_axis)

  output_window = tuple(output.shape[axis] for axis in spatial_axes)
  return Convolution(
    layout=Layout(
      shape=tuple(shape),
      batch_axes=(out_axis,),
      row_axes=(*map(after_split, window_axes), after_split(in_axis)),
      column_axes=(out_axis + 1,),
    ),
    params=params,
    window=tuple(weight.shape[axis] for axis in window_axes),
    output_window=output_window,
    num_positions=output.shape[batch_axis] * math.prod(output_window),
  )


def _lookup(equation, axes) -> Lookup | None:
  table = equation.invars[0].aval
  output = equation.outvars[0].aval
  numbers = equation.params['dimension_numbers']
  num_offsets = table.ndim - 1
  takes_whole_rows = (
    numbers.collapsed_slice_dims == (0,)
    and numbers.start_index_map == (0,)
    and not numbers.operand_batching_dims
    and tuple(equation.params['slice_sizes']) == (1, *table.shape[1:])
    and numbers.offset_dims
    == tuple(range(output.ndim - num_offsets, output.ndim))
  )
  if not takes_whole_rows or table.shape[0] > _MAX_ROWS_OF_A_LOOKUP:
    return None
  if axes != tuple(range(table.ndim)):
    return None
  return Lookup(
    layout=Layout(table.shape, (), (0,), tuple(range(1, table.ndim))),
    clips=equation.params['mode'] == lax.GatherScatterMode.CLIP,
    num_positions=output.size // math.prod(table.shape[1:]),
  )
