"""Operations whose per-example weight gradient is known in factored form.

A *site* is one equation of a traced loss that is linear in a weight W and
mixes it with data: a matrix product, a convolution or a row lookup. With W
read as a stack of matrices [batch, rows, columns], the gradient of one example
at a site is a sum over positions t (tokens, pixels)

  G[e] = sum_t left[e, t] right[e, t]^T            [rows, columns]

of products of the input of the site and the cotangent of its output. The
gradient is never needed as a whole: see `contraction`.
"""

from collections.abc import Sequence
import dataclasses
import math

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np


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
    if self._tiles:
      patches = self._cut(image)
    else:
      offsets = np.ndindex(*self.window)
      patches = jnp.stack([self._shifted(image, x) for x in offsets], -2)
    # [example, *output_window, offset, channel]
    _, rows, _ = self.layout.sizes()
    patches = patches.reshape(
      self.num_positions, math.prod(self.window), groups, -1
    )
    return patches.transpose(2, 0, 1, 3).reshape(groups, -1, rows)

  @property
  def _tiles(self) -> bool:
    """Whether windows lie side by side, as those of a patch embedding."""
    return tuple(self.params['window_strides']) == self.window and set(
      self.params['rhs_dilation']
    ) <= {1}

  def _cut(self, image: jax.Array) -> jax.Array:
    """The windows of an image that they tile; an edge may be left over."""
    batch, *_, channels = image.shape
    sizes = list(zip(self.output_window, self.window, strict=True))
    covered = tuple(slice(0, count * size) for count, size in sizes)
    axes = (batch, *(x for pair in sizes for x in pair), channels)
    split = image[(slice(None), *covered)].reshape(axes)
    num = len(sizes)
    order = (
      0,
      *range(1, 2 * num, 2),
      *range(2, 2 * num + 1, 2),
      2 * num + 1,
    )
    ordered = split.transpose(order)
    return ordered.reshape(batch, *self.output_window, -1, channels)

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


@dataclasses.dataclass(frozen=True)
class RaggedMatmul:
  """A `ragged_dot`: rows in groups, each multiplied by the group's own matrix.

  So mixtures of experts apply theirs to sorted tokens. JAX has no rule to map
  the operation over examples (0.10), so that here all groups' matrices are
  applied to all rows, of which those of others are zero.

  Attributes:
    layout: a matrix for each group.
    num_positions: rows of data.
  """

  layout: Layout
  num_positions: int

  data_position = 0

  def slot_data(self, data: jax.Array, sizes: jax.Array) -> jax.Array:
    """[position, row + group]: the data, and 1 at the group of each row.

    Args:
      data: [position, row].
      sizes: [group] int32 rows of each group; rows after the last have none.
    """
    ends = jnp.cumsum(sizes)
    number = jnp.arange(self.num_positions)[:, None]
    is_member = (number >= ends - sizes) & (number < ends)
    return jnp.concatenate([data, is_member.astype(data.dtype)], axis=1)

  def output(
    self, data: jax.Array, weight: jax.Array, sizes: jax.Array
  ) -> jax.Array:
    """[position, column]; see `slot_data` for the arguments."""
    left = self.left(self.slot_data(data, sizes))
    return jnp.einsum('gtr,grc->tc', left, weight)

  def left(self, data: jax.Array) -> jax.Array:
    """Rows of each group, zero where they are others', [group, position, row].

    Args:
      data: from `slot_data`.
    """
    _, rows, _ = self.layout.sizes()
    return data[:, rows:].T[:, :, None] * data[:, :rows]

  def right(self, cotangent: jax.Array) -> jax.Array:
    """Cotangent of the output, for every group, [group, position, column]."""
    groups, _, _ = self.layout.sizes()
    return jnp.broadcast_to(cotangent, (groups, *cotangent.shape))


SiteRule = Matmul | Convolution | Lookup | RaggedMatmul


def slot_data(
  rule: SiteRule, data: jax.Array, others: Sequence[jax.Array]
) -> jax.Array:
  """What a site hands on of its input.

  Cotangents are floating; row numbers are exact in float32.

  Args:
    rule: of the site.
    data: the operand that is not the weight.
    others: operands besides.
  """
  if isinstance(rule, RaggedMatmul):
    return rule.slot_data(data, *others)
  if jnp.issubdtype(data.dtype, jnp.floating):
    return data
  return data.astype(jnp.float32)
