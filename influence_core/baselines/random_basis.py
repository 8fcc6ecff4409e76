"""Random projections: the baseline that eigenvectors are held against.

Signs drawn once, of the size 1/sqrt(projection_dim), keep inner products of
gradients on average (Johnson and Lindenstrauss). With the Gram matrix of
projected gradients as curvature this is the estimator of TRAK (Park et al.,
2023) on the gradient of the loss: since that matrix is turned to its
eigenvectors, it is a basis like any other, with its eigenvalues.
"""

from collections.abc import Iterator, Mapping
import zlib

import numpy as np

from influence_core import errors


def random_vectors(
  shape: tuple[int, ...], path: str, *, projection_dim: int, seed: int
) -> np.ndarray:
  """Signs / sqrt(projection_dim) for a parameter.

  Args:
    shape: of the parameter.
    path: of the parameter; each has signs of its own.
    projection_dim: number of vectors.
    seed: of all.

  Returns:
    [projection_dim, *shape] float32.
  """
  generator = np.random.default_rng([seed, zlib.crc32(path.encode())])
  bits = generator.integers(2, size=(projection_dim, *shape), dtype=np.int8)
  return (2 * bits - 1).astype(np.float32) / np.float32(projection_dim) ** 0.5


def gram_pairs(projections: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Eigenpairs of the mean outer product of projected gradients.

  Args:
    projections: [num_examples, projection_dim] float32.

  Returns:
    [num_pairs] float64 eigenvalues, largest first, and [num_pairs,
    projection_dim] float64 eigenvectors. Pairs that are zero but for rounding
    are left out: more vectors than examples have such.

  Raises:
    errors.InputError: All gradients are zero.
  """
  values = projections.astype(np.float64)
  eigenvalues, vectors = np.linalg.eigh(values.T @ values / len(values))
  smallest = len(eigenvalues) * np.finfo(np.float32).eps * eigenvalues[-1]
  kept = eigenvalues > max(smallest, 0.0)
  if not kept.any():
    raise errors.InputError(
      'all gradients of the sample are zero; is the model trained on this loss?'
    )
  return eigenvalues[kept][::-1], vectors.T[kept][::-1]


def rotate(
  vectors: Mapping[str, np.ndarray], rotation: np.ndarray | None
) -> Iterator[tuple[str, np.ndarray]]:
  """Combinations of basis vectors, one parameter after the other.

  Args:
    vectors: [projection_dim, *shape] float32 by path.
    rotation: [num_pairs, projection_dim] float64; None for the vectors
      themselves.

  Yields:
    Path and [num_pairs, *shape] float32.
  """
  for path, rows in vectors.items():
    if rotation is None:
      yield path, rows
    else:
      flat = rotation.astype(np.float32) @ rows.reshape(len(rows), -1)
      yield path, flat.reshape(len(rotation), *rows.shape[1:])
