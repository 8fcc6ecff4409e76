"""Layers of a model: parameters whose gradients have coordinates together.

A layer is a matrix of a parameter, with the bias that is added to its output as
one more entry of its input, which is 1. Slices of a stack are layers each.
"""

from collections.abc import Sequence
import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from influence_core.subspaces import factored_gradients

# The gradient of a bias is the sum of the cotangents of its layer's output:
# float32 sums of the same numbers in another order.
_TOLERANCE = 1e-4


Side = Literal['left', 'right']


@dataclasses.dataclass(frozen=True)
class LayerStack:
  """The layers that a parameter is made of.

  Attributes:
    path: of the parameter.
    num_layers: matrices in its stack.
    num_rows: of each, with the bias.
    num_columns: of each, with the bias.
    bias: path of the bias; None for none.
    bias_side: which factor has the 1.
  """

  path: str
  num_layers: int
  num_rows: int
  num_columns: int
  bias: str | None = None
  bias_side: Side = 'left'

  @property
  def names(self) -> list[str]:
    """Of the layers."""
    if self.num_layers == 1:
      return [self.path]
    return [f'{self.path}[{number}]' for number in range(self.num_layers)]

  def factors(
    self, found: factored_gradients.Factors
  ) -> tuple[jax.Array, jax.Array]:
    """Factors [..., batch, position, entry] of the gradient with the bias."""
    left, right = found[self.path]
    if self.bias is None:
      return left, right
    if self.bias_side == 'left':
      return _with_one(left), right
    return left, _with_one(right)


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
  factors: factored_gradients.Factors,
) -> Layers:
  """The layers of a loss.

  Tables that rows are looked up in are left out: an example has coordinates in
  a few rows alone, which no few directions hold.

  Args:
    gradients: of the loss.
    factors: of a few examples, [example, batch, position, entry] by path; tell
      which bias belongs to which parameter.
  """
  left_out = tuple(
    path for path, one in gradients.matrices.items() if one.is_lookup
  )
  biases = _biases(gradients, factors)
  riding = {bias for bias, _ in biases.values()}
  stacks = []
  for path in sorted(gradients.matrices.keys() - riding - {*left_out}):
    left, right = factors[path]
    bias: str | None = None
    side: Side = 'left'
    if path in biases:
      bias, side = biases[path]
    stacks.append(
      LayerStack(
        path,
        left.shape[1],
        left.shape[-1] + (bias is not None and side == 'left'),
        right.shape[-1] + (bias is not None and side == 'right'),
        bias,
        side,
      )
    )
  return Layers(tuple(stacks), left_out)


def _biases(
  gradients: factored_gradients.FactoredGradients,
  factors: factored_gradients.Factors,
) -> dict[str, tuple[str, Side]]:
  """(path of the bias, side with the 1) by path of the parameter."""
  rows = {
    path: np.asarray(factors[path][1])[:, :, 0]
    for path, one in gradients.matrices.items()
    if one.factored is None
  }
  found: dict[str, tuple[str, Side]] = {}
  taken: set[str] = set()
  for path in sorted(gradients.matrices):
    one = gradients.matrices[path]
    if one.factored is None or one.is_lookup:
      continue
    sides: Sequence[tuple[int, Side]] = ((1, 'left'), (0, 'right'))
    for cotangent_place, side in sides:
      sums = np.asarray(factors[path][cotangent_place]).sum(axis=2)
      names = [
        x for x, row in rows.items() if x not in taken and _same(row, sums)
      ]
      if names:
        # Of several that agree, the one beside it.
        name = max(names, key=lambda other: _shared(path, other))
        found[path] = name, side
        taken.add(name)
        break
  return found


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


def _with_one(factor: jax.Array) -> jax.Array:
  ones = jnp.ones((*factor.shape[:-1], 1), factor.dtype)
  return jnp.concatenate([factor, ones], axis=-1)


def num_coordinates(
  stack: LayerStack, coordinates_per_layer: int
) -> tuple[int, int]:
  """(k, l): directions of rows and of columns, in the ratio of their numbers.

  All of them where there are no more entries than coordinates.
  """
  num_rows, num_columns = stack.num_rows, stack.num_columns
  if num_rows * num_columns <= coordinates_per_layer:
    return num_rows, num_columns
  ratio = coordinates_per_layer * num_rows / num_columns
  k = min(num_rows, coordinates_per_layer, max(1, round(ratio**0.5)))
  return k, min(num_columns, max(1, coordinates_per_layer // k))
