"""From coordinates back to parameters: the transpose of a projection."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from influence_core import types
from influence_core.subspaces import layers as layers_lib, parameter_matrices


class Sides(NamedTuple):
  """Directions of the coordinates of a stack, before any rotation.

  Attributes:
    rows: [matrix, row, k] float32.
    columns: [matrix, column, l] float32.
  """

  rows: types.Array
  columns: types.Array


def from_coordinates(coordinates: jax.Array, sides: Sides) -> jax.Array:
  """[matrix, row, column] with these coordinates, U C V^T.

  Args:
    coordinates: [matrix, k * l].
    sides: their directions.
  """
  k, l = sides.rows.shape[-1], sides.columns.shape[-1]  # noqa: E741
  return jnp.einsum(
    'brk,bkl,bcl->brc',
    sides.rows,
    coordinates.reshape(-1, k, l),
    sides.columns,
    precision=jax.lax.Precision.HIGHEST,
  )


def lift(
  weights: jax.Array,
  stacks: Sequence[layers_lib.LayerStack],
  directions: Mapping[str, tuple[types.Array, types.Array, types.Array]],
  *,
  matrices: Mapping[str, parameter_matrices.ParameterMatrices],
  leaves: Mapping[str, types.Array | jax.ShapeDtypeStruct],
) -> dict[str, jax.Array]:
  """The direction v in parameters with <v, g> = <weights, projection of g>.

  Args:
    weights: [projection_dim] of the columns of a projection.
    stacks: layers, in the order of the columns.
    directions: `kronecker.Directions` by path.
    matrices: how parameters are read as matrices, by path.
    leaves: all parameters by path, for their shapes.

  Returns:
    float32 arrays of the shapes of the parameters that have coordinates.
  """
  found: dict[str, jax.Array] = {}
  start = 0
  for stack in stacks:
    rows, columns, rotation = directions[stack.path]
    stop = start + stack.num_layers * rotation.shape[-1]
    own = weights[start:stop].reshape(stack.num_layers, -1)
    inside = jnp.einsum(
      'bn,bin->bi', own, rotation, precision=jax.lax.Precision.HIGHEST
    )
    whole = from_coordinates(inside, Sides(rows, columns))
    found |= stack.parameters(whole, matrices, leaves)
    start = stop
  return found
