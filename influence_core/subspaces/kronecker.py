"""A subspace for each layer, with the curvature inside it.

Of the gradient G of a layer only U^T G V is kept: its coordinates along a few
directions of its rows and of its columns, by default the leading eigenvectors
of E[G G^T] and E[G^T G] over gradients whose second moment is the curvature.
Inside, the curvature is a small matrix, E[c c^T] of the coordinates c, shrunk
towards its diagonal. Turned to its eigenvectors, coordinates are columns with
an eigenvalue each, and influence is a weighted inner product as with
eigenpairs.

No vector of the size of the parameters is formed, and two passes over a sample
are all that it takes.

References:
  George et al., "Fast Approximate Natural Gradient Descent in a
  Kronecker-factored Eigenbasis", NeurIPS 2018, for the directions.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import choices
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  hessian_inside,
  layer_collectors,
  layers as layers_lib,
  matrix_gradients,
  side_directions,
)


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
    eigenvalues: [batch, n] float64, falling; negative ones of a Hessian alone.
    mean_curvatures: [batch] float64: trace over size of each whole layer, of
      the second moment of gradients.
    captured: [batch] float64: share of that trace that is inside.
  """

  directions: Directions
  eigenvalues: np.ndarray
  mean_curvatures: np.ndarray
  captured: np.ndarray


@dataclasses.dataclass(frozen=True)
class Fitted:
  """The subspaces of a model.

  Attributes:
    stacks: by path.
    left_out: share of the trace of the curvature of each parameter without
      coordinates, by path.
  """

  stacks: Mapping[str, FittedLayers]
  left_out: Mapping[str, float]


def fit(
  sample: factored_sample.FactoredSample,
  layers: layers_lib.Layers,
  coordinates_per_layer: int,
  *,
  directions_of: factored_sample.FactoredSample | None = None,
  hessian_of: factored_sample.FactoredSample | None = None,
  kind: choices.Directions = 'leading',
  shrinkage: float = 0.0,
  l2_weight: float = 0.0,
  seed: int = 0,
) -> Fitted:
  """Directions in one pass over the sample, the curvature inside in another.

  Args:
    sample: of gradients whose second moment is the curvature.
    layers: of the model.
    coordinates_per_layer: at most, for each.
    directions_of: gradients of the same second moment, which may be fewer, as
      directions need to be known less well; None for those of `sample`.
    hessian_of: the loss whose Hessian is to be inside instead, in a third pass.
    kind: of the directions.
    shrinkage: share of its own diagonal that the curvature inside is made of,
      from 0, as it was found, to 1, as in EK-FAC.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2, which the
      curvature has c more of.
    seed: of random directions.

  Returns:
    The subspaces, and how much of the curvature they hold.
  """
  stacks = layers.stacks
  directions = side_directions.from_sample(
    directions_of or sample, stacks, coordinates_per_layer, kind, seed
  )
  inside = sample.mean('inside', _inside(sample.gradients, stacks), directions)
  curvature = inside
  if hessian_of is not None:
    curvature = hessian_of.mean(
      'hessian',
      hessian_inside.inside(hessian_of.gradients, stacks),
      directions,
    )
  by_path = {
    stack.path: _fitted(
      stack,
      directions[stack.path],
      _shrunk(curvature[stack.path], shrinkage),
      np.trace(inside[stack.path], axis1=1, axis2=2),
      inside[f'{stack.path}/trace'],
      l2_weight,
    )
    for stack in stacks
  }
  left_out = {
    path: float(inside[f'{path}/trace'].sum()) for path in layers.left_out
  }
  whole = sum(float(inside[f'{stack.path}/trace'].sum()) for stack in stacks)
  whole += sum(left_out.values())
  return Fitted(
    by_path,
    {path: trace / (whole or 1) for path, trace in left_out.items()},
  )


def _shrunk(curvature: np.ndarray, shrinkage: float) -> np.ndarray:
  """The curvature with smaller entries beside its diagonal.

  Off it, the moments of a sample are mostly chance where it is not many times
  larger than there are coordinates; most of all of a model that has memorised
  it. The diagonal is estimated much better (Ledoit and Wolf, 2004; Schaefer and
  Strimmer, 2005, target D), and in these directions is most of the matrix.
  """
  diagonal = np.eye(curvature.shape[-1])
  return curvature * (1 - shrinkage * (1 - diagonal))


def _fitted(
  stack: layers_lib.LayerStack,
  directions: Mapping[str, np.ndarray],
  curvature: np.ndarray,
  held: np.ndarray,
  traces: np.ndarray,
  l2_weight: float,
) -> FittedLayers:
  """Turns the coordinates of a stack to the eigenvectors of the curvature.

  Args:
    stack: the layers.
    directions: of their coordinates.
    curvature: [matrix, k * l, k * l] inside.
    held: [matrix] trace of the second moment inside.
    traces: [matrix] of the whole.
    l2_weight: see `fit`.
  """
  values, vectors = np.linalg.eigh((curvature + curvature.swapaxes(1, 2)) / 2)
  # A second moment has no negative eigenvalues but those of rounding; those of
  # a Hessian are its own.
  noise = np.finfo(np.float32).eps * np.abs(values).max(axis=1, keepdims=True)
  values = np.where(np.abs(values) <= noise * values.shape[1], 0, values)
  rotation = vectors[..., ::-1].astype(np.float32)
  # The mean over the rows of a table is not the scale of their sum.
  whole = held if stack.is_table else traces
  num_rows = 1 if stack.is_table else stack.num_rows
  return FittedLayers(
    Directions(directions['rows'], directions['columns'], rotation),
    values[..., ::-1] + l2_weight,
    whole / (num_rows * stack.num_columns) + l2_weight,
    held / np.where(traces > 0, traces, 1),
  )


def norms_and_coordinates(
  stacks: Sequence[layers_lib.LayerStack],
) -> layer_collectors.Statistic:
  """|G|^2 of each layer, also without coordinates, and U^T G V.

  Its constants are the directions 'rows' and 'columns' of each stack, by path.
  A bias that rides with its layer counts there.
  """
  stack_of = {stack.path: stack for stack in stacks}
  riding = {stack.bias for stack in stacks}

  def statistic(path, gradient, own):
    if path in riding:
      return {}
    if path not in stack_of:
      return {'norm': matrix_gradients.squared_norms(gradient)}
    gradient = stack_of[path].read(gradient)
    return {
      'norm': matrix_gradients.squared_norms(gradient),
      'coordinates': matrix_gradients.coordinates(
        gradient, own['rows'], own['columns']
      ),
    }

  return statistic


def _inside(
  gradients: factored_gradients.FactoredGradients,
  stacks: Sequence[layers_lib.LayerStack],
) -> factored_sample.Total:
  """E[c c^T] of the coordinates of each stack, [matrix, k * l, k * l].

  With [matrix] traces of the whole second moments, also of what has no
  coordinates.
  """
  statistic = norms_and_coordinates(stacks)

  def total(leaves, features, mask, directions):
    _, found = gradients.of_each(leaves, features, statistic, directions)
    sums = {
      f'{path}/trace': jnp.einsum('eb,e->b', own['norm'], mask)
      for path, own in found.items()
      if own
    }
    for stack in stacks:
      coordinates = found[stack.path]['coordinates']
      sums[stack.path] = jnp.einsum(
        'ebi,ebj,e->bij',
        coordinates,
        coordinates,
        mask,
        precision=jax.lax.Precision.HIGHEST,
      )
    return sums

  return total
