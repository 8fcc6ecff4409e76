"""Directions of the rows and columns of gradients that coordinates are along.

They come from the second moment M of a side: its leading eigenvectors, which
hold most of the curvature, or random directions of whitened gradients,
(M + e)^-1/2 R, which tell a little of all. Eigenvectors of large sides are
found from products with random directions, so that no large matrix is formed.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from influence_core.subspaces import layers as layers_lib

Kind = Literal['leading', 'whitened']

# Moments of larger sides are not formed: their leading eigenvectors are found
# from products with so many random directions for each that is wanted.
_MAX_SIDE = 512
_OVERSAMPLING = 4
# e, in units of the mean eigenvalue: as much as damping is.
_WHITENING = 0.1


class _Eigenpairs(NamedTuple):
  """The largest eigenvalues of a second moment.

  Attributes:
    values: [n] float64, falling.
    vectors: [side, n], orthonormal.
    trace: of the whole moment.
  """

  values: np.ndarray
  vectors: np.ndarray
  trace: float


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
  kind: Kind = 'leading',
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


def _eigenpairs(moment: np.ndarray, searched: np.ndarray | None) -> _Eigenpairs:
  """Of [side, side], or of its products with [side, more] directions."""
  if searched is not None:
    return _nystrom(moment, searched)
  values, vectors = np.linalg.eigh(moment)
  return _Eigenpairs(values[::-1], vectors[:, ::-1], np.trace(moment))


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
  roots = np.sqrt(np.maximum(pairs.values, 0) + added)
  whitened = pairs.vectors @ (inside / roots[:, None])
  return np.linalg.qr(whitened + outside / np.sqrt(rest + added))[0]
