"""Finds the rule of a site in an equation of a traced loss.

Where an equation is no site, or of a form that no rule covers, its weight is
differentiated by JAX.
"""

import math

from jax import lax
from jax.extend import core as jax_core

from influence_core.projection import weight_sites

# A lookup's row numbers travel as float32, which holds integers exactly up to
# this many rows.
_MAX_ROWS_OF_A_LOOKUP = 2**24


def site_rule(
  equation: jax_core.JaxprEqn, weight_position: int, axes: tuple[int, ...]
) -> weight_sites.SiteRule | None:
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
    case 'ragged_dot_general' if weight_position == 1:
      return _ragged_matmul(equation, axes)
  return None


def _matmul(equation, weight_position, axes) -> weight_sites.Matmul:
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
  layout = weight_sites.Layout(
    shape=tuple(stored_shape),
    batch_axes=tuple(axes[pair[0]] for pair in batch_pairs),
    row_axes=tuple(axes[pair[0]] for pair in contracted_pairs),
    column_axes=tuple(axes[axis] for axis in columns),
  )
  return weight_sites.Matmul(
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


def _convolution(equation, axes) -> weight_sites.Convolution | None:
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
  return weight_sites.Convolution(
    layout=weight_sites.Layout(
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


def _ragged_matmul(equation, axes) -> weight_sites.RaggedMatmul | None:
  numbers = equation.params['ragged_dot_dimension_numbers']
  data, weight = (atom.aval for atom in equation.invars[:2])
  is_plain = (
    (data.ndim, weight.ndim) == (2, 3)
    and numbers.dot_dimension_numbers == (((1,), (1,)), ((), ()))
    and numbers.lhs_ragged_dimensions == (0,)
    and numbers.rhs_group_dimensions == (0,)
    and equation.params['group_offset'] is None
  )
  if not is_plain or axes != (0, 1, 2):
    return None
  return weight_sites.RaggedMatmul(
    weight_sites.Layout(weight.shape, (0,), (1,), (2,)), data.shape[0]
  )


def _lookup(equation, axes) -> weight_sites.Lookup | None:
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
  return weight_sites.Lookup(
    layout=weight_sites.Layout(
      table.shape, (), (0,), tuple(range(1, table.ndim))
    ),
    clips=equation.params['mode'] == lax.GatherScatterMode.CLIP,
    num_positions=output.size // math.prod(table.shape[1:]),
  )
