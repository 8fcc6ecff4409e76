"""Directions of the rows and columns of gradients that coordinates are along.

They come from the second moment M of a side: its leading eigenvectors, which
hold most of the curvature, or random directions of whitened gradients,
(M + e)^-1/2 R, which tell a little of all. Eigenvectors of large sides are
found from products with random directions, so that no large matrix is formed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from influence_core import choices
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  layers as layers_lib,
  matrix_gradients,
)

# Moments of larger sides are not formed: their leading eigenvectors are found
# from products with so many random directions for each that is wanted.
_MAX_SIDE = 512
_OVERSAMPLING = 4
# e, in units of the mean eigenvalue: as much as damping is.
_WHITENING = 0.1


class _Eigenpairs(NamedTuple):
  """The largest eigenvalues of a second moment.

  Attributes:
    values: [n] float64, falling, none below zero.
    vectors: [side, n], orthonormal.
    trace: of the whole moment.
  """

  values: np.ndarray
  vectors: np.ndarray
  trace: float


def from_sample(
  sample: factored_sample.FactoredSample,
  stacks: Sequence[layers_lib.LayerStack],
  coordinates_per_layer: int,
  kind: choices.Directions,
  seed: int,
) -> dict[str, dict[str, np.ndarray]]:
  """'rows' and 'columns' of each stack by path, in a pass over a sample.

  Args:
    sample: of gradients whose second moment is the curvature.
    stacks: of layers.
    coordinates_per_layer: at most, for each.
    kind: see the module.
    seed: of random directions.

  Returns:
    [matrix, side, count] float32 of each side, orthonormal.
  """
  counts = {
    stack.path: layers_lib.num_coordinates(stack, coordinates_per_layer)
    for stack in stacks
  }
  searched = dict(random_directions(stacks, counts, seed))
  moments = sample.mean('moments', _moments(sample.gradients, stacks), searched)
  generator = np.random.default_rng((seed, 1))
  return {
    stack.path: find(
      stack,
      moments,
      counts[stack.path],
      searched.get(stack.path, {}),
      kind=kind,
      generator=generator,
    )
    for stack in stacks
  }


def random_directions(
  stacks: Sequence[layers_lib.LayerStack],
  counts: Mapping[str, tuple[int, int]],
  seed: int,
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
  """[batch, side, count] random directions of sides that are too large."""
  generator = np.random.default_rng(seed)
  for stack in stacks:
    found = {}
    if stack.is_table:
      continue
    for side, size, count in (
      ('rows', stack.num_rows, counts[stack.path][0]),
      ('columns', stack.num_columns, counts[stack.path][1]),
    ):
      width = _OVERSAMPLING * count
      if size > max(_MAX_SIDE, 2 * width):
        shape = (stack.num_layers, size, width)
        found[side] = generator.standard_normal(shape, np.float32)
    if found:
      yield stack.path, found


def find(
  stack: layers_lib.LayerStack,
  moments: Mapping[str, np.ndarray],
  counts: tuple[int, int],
  searched: Mapping[str, np.ndarray],
  *,
  kind: choices.Directions,
  generator: np.random.Generator,
) -> dict[str, np.ndarray]:
  """[matrix, side, count] float32 of both sides of a stack, orthonormal.

  Args:
    stack: of layers.
    moments: [matrix, side, side] by path and side, or their products with what
      is searched by.
    counts: of the directions of rows and of columns.
    searched: [matrix, side, more] random directions of large sides.
    kind: see the module.
    generator: of whitened directions.
  """
  found = {}
  for side, count in zip(('rows', 'columns'), counts, strict=True):
    if f'{stack.path}/{side}' not in moments:
      continue
    own = moments[f'{stack.path}/{side}']
    known = searched.get(side, [None] * len(own))
    pairs = [_eigenpairs(*one) for one in zip(own, known, strict=True)]
    if kind == 'leading':
      vectors = [one.vectors[:, :count] for one in pairs]
    else:
      vectors = [_whitened(one, count, generator) for one in pairs]
    found[side] = np.stack(vectors).astype(np.float32)
  if stack.is_table:
    found['rows'] = sum_of_rows(stack.num_rows)
  return found


def sum_of_rows(num_rows: int) -> np.ndarray:
  """[1, row, 1] float32, of length 1."""
  return np.full((1, num_rows, 1), num_rows**-0.5, np.float32)


def _moments(
  gradients: factored_gradients.FactoredGradients,
  stacks: Sequence[layers_lib.LayerStack],
) -> factored_sample.Total:
  """Second moments of both sides of each stack."""
  stack_of = {stack.path: stack for stack in stacks}

  def statistic(path, gradient, searched):
    if path not in stack_of:
      return {}
    own = stack_of[path].read(gradient)
    known = searched or {}
    if stack_of[path].is_table:
      unit = jnp.eye(stack_of[path].num_columns)[None]
      rows = sum_of_rows(stack_of[path].num_rows)
      summed = matrix_gradients.coordinates(own, jnp.asarray(rows), unit)
      return {'columns': jnp.einsum('bi,bj->bij', summed, summed)}
    return {
      'rows': matrix_gradients.row_moments(own, known.get('rows')),
      'columns': matrix_gradients.row_moments(
        own.transposed(), known.get('columns')
      ),
    }

  def total(leaves, features, mask, searched):
    found = gradients.total(leaves, features, statistic, searched, mask=mask)
    return {
      f'{path}/{name}': sums
      for path, own in found.items()
      for name, sums in own.items()
    }

  return total


def _eigenpairs(moment: np.ndarray, searched: np.ndarray | None) -> _Eigenpairs:
  """Of [side, side], or of its products with [side, more] directions."""
  if searched is not None:
    return _nystrom(moment, searched)
  values, vectors = np.linalg.eigh(moment)
  values = np.maximum(values[::-1], 0)
  return _Eigenpairs(values, vectors[:, ::-1], np.trace(moment))


def _nystrom(products: np.ndarray, directions: np.ndarray) -> _Eigenpairs:
  """Of a Nystrom approximation of a positive matrix M.

  Args:
    products: M D, [side, more].
    directions: D, [side, more], normally distributed.

  References:
    Tropp et al., "Fixed-Rank Approximation of a Positive-Semidefinite Matrix
    from Streaming Data", NeurIPS 2017, algorithm 3; for the trace, Hutchinson,
    "A Stochastic Estimator of the Trace of the Influence Matrix", 1989.
  """
  trace = float(np.sum(directions * products) / directions.shape[1])
  basis, triangle = np.linalg.qr(directions.astype(np.float64))
  products = np.linalg.solve(triangle.T, products.T).T
  # Rounding of float32 sums, which may leave M less than positive.
  shift = np.finfo(np.float32).eps * np.linalg.norm(products)
  if shift == 0:
    return _Eigenpairs(np.zeros(basis.shape[1]), basis, 0.0)
  shifted = products + shift * basis
  core = basis.T @ shifted
  factor = np.linalg.cholesky((core + core.T) / 2)
  root = np.linalg.solve(factor, shifted.T).T
  vectors, roots, _ = np.linalg.svd(root, full_matrices=False)
  return _Eigenpairs(np.maximum(roots**2 - shift, 0), vectors, trace)


def _whitened(
  pairs: _Eigenpairs, count: int, generator: np.random.Generator
) -> np.ndarray:
  """[side, count] orthonormal: random directions of whitened gradients.

  Where not all eigenvalues are known, the others are taken to be the same.
  """
  size, known = pairs.vectors.shape
  mean = pairs.trace / size
  if mean <= 0:
    return pairs.vectors[:, :count]
  rest = max(0.0, pairs.trace - pairs.values.sum()) / max(1, size - known)
  random = generator.standard_normal((size, count))
  inside = pairs.vectors.T @ random
  outside = random - pairs.vectors @ inside
  added = _WHITENING * mean
  roots = np.sqrt(pairs.values + added)
  whitened = pairs.vectors @ (inside / roots[:, None])
  return np.linalg.qr(whitened + outside / np.sqrt(rest + added))[0]
