"""The vectors of a Krylov basis, and what their stores have to do.

A vector of [num_parameters] entries is cut into equal *slices*, one for each
device of all processes; a process has the slices of its own devices. Outside a
store vectors travel as *slices*, [local devices, slice] float32. What a store
does to all its vectors it does block by block of columns, so that they are
never held twice, however large they are. `host_vectors` keeps them in host
memory or in files, `device_vectors` on the devices.

Inner products are summed in float32 within a block and in float64 over blocks:
float32 sums over millions of entries lose orthogonality.
"""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import jax
import ml_dtypes
import numpy as np

# Columns of a block: with 50 vectors its float32 values fit in a CPU's cache,
# so that conversion and overlaps cost no second reading.
BLOCK_COLUMNS = 1 << 14

DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
}


class KrylovVectors(Protocol):
  """Vectors that are appended, orthonormal but for rounding.

  Attributes:
    num_columns: entries of a vector on the devices of this process.
  """

  @property
  def num_columns(self) -> int: ...

  def __len__(self) -> int: ...

  def append(self, vector: Any, norm: float) -> float:
    """Stores `vector` / `norm`.

    Args:
      vector: slices, or a residual from `orthogonalise`.
      norm: its length.

    Returns:
      The length of what rounding to the stored dtype took away.
    """
    ...

  def vector(self, number: int) -> jax.Array:
    """A stored vector as slices."""
    ...

  def overlaps(self, vector: jax.Array) -> np.ndarray:
    """[num_vectors] float64 inner products with all stored vectors."""
    ...

  def orthogonalise(
    self, vector: jax.Array, expected: np.ndarray
  ) -> tuple[Any, np.ndarray, float]:
    """Takes out the stored vectors by classical Gram-Schmidt, at least twice.

    The first time with coefficients that are known beforehand, so that all
    vectors are read twice in all; if they turn out to be wrong, once more.

    Args:
      vector: slices.
      expected: [num_vectors - 1] float64 inner products with all stored vectors
        but the last, as far as they are known; empty while none is stored.

    Returns:
      The residual, to be given to `append`; the [num_vectors] float64
      coefficients of what was taken out; the length of the residual.
    """
    ...

  def combine(
    self, coefficients: np.ndarray, start: int, stop: int
  ) -> np.ndarray:
    """Columns start:stop of linear combinations.

    Args:
      coefficients: [num_combinations, num_vectors].
      start: first column, counted in this process's own columns.
      stop: the one after the last.

    Returns:
      [num_combinations, stop - start] float32.
    """
    ...

  def restart(self, coefficients: np.ndarray) -> None:
    """Exchanges all vectors but the last for combinations of them.

    Args:
      coefficients: [num_combinations, num_vectors - 1].
    """
    ...

  def gram(self, other: Self) -> np.ndarray:
    """[len(self), len(other)] float64 inner products of stored vectors."""
    ...


class Rows(Protocol):
  """Where `HostVectors` keeps its vectors: this process's columns of each."""

  block_columns: int
  num_columns: int
  dtype: np.dtype

  def __len__(self) -> int: ...

  def append(self, row: np.ndarray) -> None:
    """Adds [num_columns] of the stored dtype."""
    ...

  def row(self, number: int) -> np.ndarray:
    """[num_columns] of the stored dtype."""
    ...

  def block(self, start: int, stop: int) -> np.ndarray:
    """[num_rows, stop - start] float32; valid until the next call.

    The columns lie between two multiples of `block_columns`.
    """
    ...

  def replace(self, blocks: Iterator[np.ndarray], num_rows: int) -> None:
    """Exchanges all rows but the last for others, given block by block.

    Args:
      blocks: [num_rows, columns] float32, over all columns in order; each may
        be made from the old rows' values in the same columns.
      num_rows: their number.
    """
    ...


def orthogonality_error(vectors: KrylovVectors) -> float:
  """max |Q Q^T - I| over the stored vectors Q."""
  gram = vectors.gram(vectors)
  return float(np.abs(gram - np.eye(len(gram))).max())
