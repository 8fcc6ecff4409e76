"""A subspace for each layer, with the curvature inside it.

Of the gradient G of a layer only U^T G V is kept: its coordinates in the
leading directions of its rows and of its columns, the eigenvectors of E[G G^T]
and E[G^T G] over gradients whose second moment is the curvature. Inside, the
curvature is a small matrix, E[c c^T] of the coordinates c, and known exactly.
Turned to its eigenvectors, coordinates are columns with an eigenvalue each, and
influence is a weighted inner product as with eigenpairs.

No vector of the size of the parameters is formed, and two passes over a sample
are all that it takes.

References:
  George et al., "Fast Approximate Natural Gradient Descent in a
  Kronecker-factored Eigenbasis", NeurIPS 2018, for the directions.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse.linalg

from influence_core.subspaces import (
  factor_products,
  factored_sample,
  layers as layers_lib,
)

# Larger sides are not formed as matrices: their leading directions are looked
# for among so many random ones for each that is wanted.
_MAX_SIDE = 4096
_OVERSAMPLING = 4
# Sides whose eigenvectors are all computed, of which some are used.
_MAX_DENSE_SIDE = 512


class Directions(NamedTuple):
  """What coordinates of the layers of a stack are taken along.

  Attributes:
    rows: [batch, row, k] float32, orthonormal.
    columns: [batch, column, l] float32, orthonormal.
    rotation: [batch, k * l, n] float32: eigenvectors of the curvature inside.
  """

  rows: np.ndarray
  columns: np.ndarray
  rotation: np.ndarray


@dataclasses.dataclass(frozen=True)
class FittedLayers:
  """The subspaces of the layers of a stack.

  Attributes:
    directions: of the coordinates.
    eigenvalues: [batch, n] float64, falling.
    mean_curvatures: [batch] float64: trace over size of each whole layer.
    captured: [batch] float64: share of the trace that is inside.
  """

  directions: Directions
  eigenvalues: np.ndarray
  mean_curvatures: np.ndarray
  captured: np.ndarray


def fit(
  sample: factored_sample.FactoredSample,
  stacks: Sequence[layers_lib.LayerStack],
  coordinates_per_layer: int,
  *,
  l2_weight: float = 0.0,
  seed: int = 0,
) -> dict[str, FittedLayers]:
  """Directions in one pass over the sample, the curvature inside in another.

  Args:
    sample: of gradients.
    stacks: layers that have coordinates.
    coordinates_per_layer: at most, for each.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2, which the
      curvature has c more of.
    seed: of the random directions that large sides are searched by.

  Returns:
    The subspaces of each stack by path.
  """
  counts = {
    stack.path: layers_lib.num_coordinates(stack, coordinates_per_layer)
    for stack in stacks
  }
  searched = dict(_random_directions(stacks, counts, seed))
  moments = sample.mean(_moments(stacks), searched)
  directions = {
    stack.path: {
      side: _leading(moments[f'{stack.path}/{side}'], count)
      for side, count in zip(
        ('rows', 'columns'), counts[stack.path], strict=True
      )
    }
    for stack in stacks
  }
  inside = sample.mean(_inside(stacks), directions)
  return {
    stack.path: _fitted(
      stack,
      directions[stack.path],
      inside[stack.path],
      moments[f'{stack.path}/trace'],
      l2_weight,
    )
    for stack in stacks
  }


def _fitted(stack, directions, inside, traces, l2_weight) -> FittedLayers:
  """Turns the coordinates of a stack to the eigenvectors of the curvature."""
  values, vectors = np.linalg.eigh(inside)
  size = stack.num_rows * stack.num_columns
  rotation = vectors[..., ::-1].astype(np.float32)
  return FittedLayers(
    Directions(directions['rows'], directions['columns'], rotation),
    np.maximum(values[..., ::-1], 0.0) + l2_weight,
    traces / size + l2_weight,
    np.trace(inside, axis1=1, axis2=2) / np.where(traces > 0, traces, 1),
  )


def _random_directions(
  stacks: Sequence[layers_lib.LayerStack],
  counts: Mapping[str, tuple[int, int]],
  seed: int,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """[batch, side, count] random directions of sides that are too large."""
  generator = np.random.default_rng(seed)
  for stack in stacks:
    found = {}
    for side, size, count in (
      ('rows', stack.num_rows, counts[stack.path][0]),
      ('columns', stack.num_columns, counts[stack.path][1]),
    ):
      if size > _MAX_SIDE:
        shape = (stack.num_layers, size, min(size, _OVERSAMPLING * count))
        found[side] = generator.standard_normal(shape, np.float32)
    if found:
      yield stack.path, found


def _moments(stacks: Sequence[layers_lib.LayerStack]):
  """Second moments of both sides and the trace, by path/side."""

  def statistic(factors, mask, searched):
    found = {}
    for stack in stacks:
      left, right = stack.factors(factors)
      known = searched.get(stack.path, {})
      found[f'{stack.path}/rows'] = factor_products.row_moments(
        left, right, mask, known.get('rows')
      )
      found[f'{stack.path}/columns'] = factor_products.row_moments(
        right, left, mask, known.get('columns')
      )
      norms = factor_products.squared_norms(left, right)
      found[f'{stack.path}/trace'] = jnp.sum(norms * mask[:, None], axis=0)
    return found

  return statistic


def _inside(stacks: Sequence[layers_lib.LayerStack]):
  """E[c c^T] of the coordinates of each stack, [batch, k * l, k * l]."""

  def statistic(factors, mask, directions):
    found = {}
    for stack in stacks:
      own = directions[stack.path]
      coordinates = factor_products.coordinates(
        *stack.factors(factors), own['rows'], own['columns']
      )
      found[stack.path] = jnp.einsum(
        'ebi,ebj,e->bij',
        coordinates,
        coordinates,
        mask,
        precision=jax.lax.Precision.HIGHEST,
      )
    return found

  return statistic


def _leading(moments: np.ndarray, count: int) -> np.ndarray:
  """[batch, side, count] float32 leading directions.

  Args:
    moments: [batch, side, side], or [batch, side, more] products with random
      directions.
    count: of the directions.
  """
  return np.stack([_leading_of(moment, count) for moment in moments])


def _leading_of(moment: np.ndarray, count: int) -> np.ndarray:
  size, width = moment.shape
  if width < size:
    return np.linalg.svd(moment, full_matrices=False)[0][:, :count].astype('f4')
  if size <= _MAX_DENSE_SIDE or count > size // 4:
    return np.linalg.eigh(moment)[1][:, ::-1][:, :count].astype('f4')
  start = np.ones(size)  # For the same directions in every run.
  values, vectors = scipy.sparse.linalg.eigsh(moment, count, v0=start)
  return vectors[:, np.argsort(-values)].astype('f4')
