"""Leading directions of the rows and columns of gradients.

They are the eigenvectors of second moments. Those of large sides are found from
products with random directions, so that no large matrix is formed.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from influence_core.subspaces import layers as layers_lib

# Moments of larger sides are not formed: their leading eigenvectors are found
# from products with so many random directions for each that is wanted.
_MAX_SIDE = 512
_OVERSAMPLING = 4


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
) -> dict[str, np.ndarray]:
  """[matrix, side, count] float32 of both sides of a stack."""
  found = {
    side: _leading(moments[f'{stack.path}/{side}'], count, searched.get(side))
    for side, count in zip(('rows', 'columns'), counts, strict=True)
    if f'{stack.path}/{side}' in moments
  }
  if stack.is_table:
    found['rows'] = sum_of_rows(stack.num_rows)
  return found


def sum_of_rows(num_rows: int) -> np.ndarray:
  """[1, row, 1] float32, of length 1."""
  return np.full((1, num_rows, 1), num_rows**-0.5, np.float32)


def _leading(
  moments: np.ndarray, count: int, searched: np.ndarray | None
) -> np.ndarray:
  """[matrix, side, count] float32 leading eigenvectors.

  Args:
    moments: [matrix, side, side], or their products with `searched`.
    count: of the directions.
    searched: [matrix, side, more] random directions; None for none.
  """
  if searched is None:
    vectors = np.linalg.eigh(moments)[1][..., ::-1]
    return vectors[..., :count].astype(np.float32)
  pairs = zip(moments, searched, strict=True)
  vectors = np.stack([_nystrom(*pair)[:, :count] for pair in pairs])
  return vectors.astype(np.float32)


def _nystrom(products: np.ndarray, directions: np.ndarray) -> np.ndarray:
  """Eigenvectors of a Nystrom approximation of a positive matrix M.

  Args:
    products: M D, [side, more].
    directions: D, [side, more].

  Returns:
    [side, more], that of the largest eigenvalue first.

  References:
    Tropp et al., "Fixed-Rank Approximation of a Positive-Semidefinite Matrix
    from Streaming Data", NeurIPS 2017, algorithm 3.
  """
  basis, triangle = np.linalg.qr(directions.astype(np.float64))
  products = np.linalg.solve(triangle.T, products.T).T
  # Rounding of float32 sums, which may leave M less than positive.
  shift = np.finfo(np.float32).eps * np.linalg.norm(products)
  if shift == 0:
    return basis
  shifted = products + shift * basis
  core = basis.T @ shifted
  factor = np.linalg.cholesky((core + core.T) / 2)
  root = np.linalg.solve(factor, shifted.T).T
  return np.linalg.svd(root, full_matrices=False)[0]
