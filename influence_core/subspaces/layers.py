"""Layers of a model: parameters whose gradients have coordinates together.

A layer is a matrix of a parameter, with the bias that is added to its output as
one more entry of its input, which is 1. Slices of a stack are layers each.
"""

from collections.abc import Mapping
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import choices, types
from influence_core.devices import parameter_layout
from influence_core.subspaces import (
  factored_gradients,
  matrix_gradients,
  parameter_matrices,
)

# The gradient of a bias is the sum of the cotangents of its layer's output:
# float32 sums of the same numbers in another order.
_TOLERANCE = 1e-4
# That tell which bias belongs to which layer, at most; one whose outputs are
# all zero tells nothing.
_NUM_EXAMPLES = 8


@dataclasses.dataclass(frozen=True)
class LayerStack:
  """The layers that a parameter is made of.

  Attributes:
    path: of the parameter.
    num_layers: matrices in its stack.
    num_rows: of each, with the bias.
    num_columns: of each.
    bias: path of the bias, which is the last row; None for none.
    is_transposed: whether rows and columns of the parameter's matrices are
      exchanged, so that rows are those of the layer's input.
    is_table: whether rows are looked up and no more, so that there is one
      direction of rows: their sum.
  """

  path: str
  num_layers: int
  num_rows: int
  num_columns: int
  bias: str | None = None
  is_transposed: bool = False
  is_table: bool = False

  @property
  def names(self) -> list[str]:
    """Of the layers."""
    if self.num_layers == 1:
      return [self.path]
    return [f'{self.path}[{number}]' for number in range(self.num_layers)]

  def read(
    self, gradient: matrix_gradients.MatrixGradient
  ) -> matrix_gradients.MatrixGradient:
    """The gradient of the layers from that of the parameter."""
    if self.is_transposed:
      gradient = gradient.transposed()
    return gradient if self.bias is None else gradient.with_bias()

  def parameters(
    self,
    matrices: jax.Array,
    read: Mapping[str, parameter_matrices.ParameterMatrices],
    leaves: Mapping[str, types.Array | jax.ShapeDtypeStruct],
  ) -> dict[str, jax.Array]:
    """What matrices of the layers, with the bias, are in the parameters.

    Args:
      matrices: [num_layers, num_rows, num_columns].
      read: how parameters are read as matrices.
      leaves: all parameters by path, for their shapes.
    """
    found = {}
    if self.bias is not None:
      bias = read[self.bias]
      [found[self.bias]] = bias.from_matrices(
        matrices[None, :, -1:].reshape(1, *bias.sizes), leaves[self.bias].shape
      )
      matrices = matrices[:, :-1]
    if self.is_transposed:
      matrices = matrices.swapaxes(1, 2)
    one = read[self.path]
    [found[self.path]] = one.from_matrices(
      matrices[None], leaves[self.path].shape
    )
    return found


@dataclasses.dataclass(frozen=True)
class Layers:
  """All layers of a model.

  Attributes:
    stacks: that have coordinates.
    left_out: paths of parameters that have none.
  """

  stacks: tuple[LayerStack, ...]
  left_out: tuple[str, ...]


def find(
  gradients: factored_gradients.FactoredGradients,
  leaves: types.SelectedParameters,
  features: types.Features,
  *,
  tables: choices.Tables = 'left_out',
) -> Layers:
  """The layers of a loss.

  Args:
    gradients: of the loss.
    leaves: all parameters by path.
    features: pytree of [num_examples, ...] arrays, a few examples; tell which
      bias belongs to which parameter.
    tables: what of those that rows are looked up in has coordinates. An example
      has a gradient in a few rows alone, which no few directions hold.
  """
  looked_up = {
    path for path, one in gradients.matrices.items() if one.is_lookup
  }
  left_out = tuple(sorted(looked_up)) if tables == 'left_out' else ()
  biases = _biases(gradients, leaves, features)
  riding = {bias for bias, _ in biases.values()}
  stacks = []
  for path in sorted(gradients.matrices.keys() - riding - {*left_out}):
    num_layers, num_rows, num_columns = gradients.matrices[path].sizes
    bias, is_transposed = biases.get(path, (None, False))
    if is_transposed:
      num_rows, num_columns = num_columns, num_rows
    num_rows += bias is not None
    stacks.append(
      LayerStack(
        path,
        num_layers,
        num_rows,
        num_columns,
        bias,
        is_transposed,
        path in looked_up,
      )
    )
  return Layers(tuple(stacks), left_out)


def _biases(
  gradients: factored_gradients.FactoredGradients,
  leaves: types.SelectedParameters,
  features: types.Features,
) -> dict[str, tuple[str, bool]]:
  """(path of the bias, whether its layer is transposed) by path."""
  sums = _sums(gradients, leaves, features)
  rows = {
    path: np.asarray(found['formed'])
    for path, found in sums.items()
    if 'formed' in found
  }
  biases: dict[str, tuple[str, bool]] = {}
  taken: set[str] = set()
  for path in sorted(sums):
    for side in ('right', 'left'):
      if side not in sums[path]:
        continue
      own = np.asarray(sums[path][side])
      names = [
        x for x, row in rows.items() if x not in taken and _same(row, own)
      ]
      if names:
        # Of several that agree, the one beside it.
        name = max(names, key=lambda other: _shared(path, other))
        biases[path] = name, side == 'left'
        taken.add(name)
        break
  return biases


def _sums(gradients, leaves, features) -> factored_gradients.ByPath:
  """Of each example: gradients that may be a bias's, and those of outputs.

  Which side of a parameter is that of outputs is not known.
  """
  products = {
    path
    for path, one in gradients.matrices.items()
    if one.is_factored and not one.num_lookups
  }

  def statistic(path, gradient, constants):
    del constants
    if gradient.formed is not None:
      return {'formed': gradient.formed.reshape(len(gradient.formed), -1)}
    if path not in products:
      return {}
    return {
      'right': jnp.sum(gradient.right, axis=1, dtype=jnp.float32),
      'left': jnp.sum(gradient.left, axis=1, dtype=jnp.float32),
    }

  def of_one(leaves, example):
    batch = jax.tree.map(lambda leaf: leaf[None], example)
    sums = gradients.of_each(leaves, batch, statistic, {})[1]
    return jax.tree.map(lambda leaf: leaf[0], sums)

  def of_few(leaves, features):
    # One by one: the logits of a long text alone may take a gigabyte.
    return jax.lax.map(lambda one: of_one(leaves, one), features)

  step = -(-len(jax.tree.leaves(features)[0]) // _NUM_EXAMPLES)
  few = jax.tree.map(lambda leaf: leaf[::step], features)
  return jax.jit(of_few)(parameter_layout.fit_devices(leaves), few)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
  if one.shape != other.shape:
    return False
  largest = max(np.abs(one).max(), np.abs(other).max())
  difference = np.abs(one - other).max()
  # Where all is zero, nothing is known.
  return bool(largest > 0 and difference <= _TOLERANCE * largest)


def _shared(path: str, other: str) -> int:
  """Length of what two paths begin with in common."""
  pairs = zip(path, other, strict=False)
  return next((n for n, (a, b) in enumerate(pairs) if a != b), len(path))


def num_coordinates(
  stack: LayerStack, coordinates_per_layer: int
) -> tuple[int, int]:
  """(k, l): directions of rows and of columns.

  Their ratio is the square root of that of their numbers: by the ratio itself,
  of ten outputs three would be kept. All directions where there are no more
  entries than coordinates.
  """
  num_rows, num_columns = stack.num_rows, stack.num_columns
  if stack.is_table:
    return 1, min(num_columns, coordinates_per_layer)
  if num_rows * num_columns <= coordinates_per_layer:
    return num_rows, num_columns
  ratio = (num_rows / num_columns) ** 0.5
  k = max(1, round((coordinates_per_layer * ratio) ** 0.5))
  # Of a side with fewer directions all are taken, and more of the other.
  k = max(k, -(-coordinates_per_layer // num_columns))
  k = min(num_rows, coordinates_per_layer, k)
  return k, min(num_columns, max(1, coordinates_per_layer // k))
