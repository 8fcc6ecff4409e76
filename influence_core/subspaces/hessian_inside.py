"""The Hessian of a loss inside the subspace of each layer.

With C the coordinates that a layer is moved by, theta + U C V^T, the Hessian in
C is the layer's block of the whole one, seen along U and V. A product with it
takes one forward and one backward pass for each coordinate and no vector larger
than the layer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import types
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  layers as layers_lib,
  lifting,
)

# Products at a time.
_NUM_TOGETHER = 8


def inside(
  gradients: factored_gradients.FactoredGradients,
  stacks: Sequence[layers_lib.LayerStack],
) -> factored_sample.Total:
  """Sums over examples of the Hessian, [matrix, k * l, k * l] of each stack.

  Its constants are directions as in `kronecker.fit`, by path.

  Args:
    gradients: of the loss.
    stacks: layers that have coordinates.
  """

  def total(leaves, features, mask, directions):
    return {
      stack.path: _of_stack(
        gradients,
        stack,
        leaves=leaves,
        features=features,
        mask=mask,
        directions=directions[stack.path],
      )
      for stack in stacks
    }

  return total


def _of_stack(
  gradients: factored_gradients.FactoredGradients,
  stack: layers_lib.LayerStack,
  *,
  leaves: types.SelectedParameters,
  features: types.Features,
  mask: jax.Array,
  directions: Mapping[str, Any],
) -> jax.Array:
  sides = lifting.Sides(directions['rows'], directions['columns'])
  k, l = (side.shape[-1] for side in sides)  # noqa: E741
  shape = stack.num_layers, k * l

  def loss(moved):
    matrices = lifting.from_coordinates(moved, sides)
    changed = {
      path: leaves[path] + move.astype(leaves[path].dtype)
      for path, move in stack.parameters(
        matrices, gradients.matrices, leaves
      ).items()
    }
    losses = gradients.losses({**leaves, **changed}, features)
    return jnp.sum(losses * mask)

  def product(unit):
    """With one coordinate of one layer; what it is in that layer."""
    layer, number = unit
    tangent = jnp.zeros(shape).at[layer, number].set(1.0)
    _, moved = jax.jvp(jax.grad(loss), (jnp.zeros(shape),), (tangent,))
    return moved[layer]

  units = jnp.indices(shape).reshape(2, -1).T
  found = jax.lax.map(product, units, batch_size=_NUM_TOGETHER)
  return found.reshape(*shape, k * l)
