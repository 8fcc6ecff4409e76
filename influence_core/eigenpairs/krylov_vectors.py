"""The vectors of a Krylov basis, kept in host memory or in files.

A vector of [num_parameters] entries is cut into equal *slices*, one for each
device of all processes; a process has the slices of its own devices. Outside a
store vectors travel as *slices*, [local devices, slice] float32. What a store
does to all its vectors it does block by block of columns, so that they are
never held twice, however large they are; `device_vectors` is the store that
keeps them on the devices.

Inner products are summed in float32 within a block and in float64 over blocks:
float32 sums over millions of entries lose orthogonality.
"""

from collections.abc import Iterator
from typing import Any, Protocol, Self

import jax
import ml_dtypes
import numpy as np

from influence_core import types
from influence_core.devices import host_products, multi_device
from influence_core.eigenpairs import gram_schmidt

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


class MemoryRows:
  """Rows of one array in host memory."""

  def __init__(self, capacity: int, num_columns: int, dtype: np.dtype):
    self.block_columns = BLOCK_COLUMNS
    self.num_columns = num_columns
    self.dtype = dtype
    # The operating system gives memory only as rows are written.
    self._rows = np.empty((capacity, num_columns), dtype)
    self._count = 0

  def __len__(self) -> int:
    return self._count

  def append(self, row: np.ndarray) -> None:
    self._rows[self._count] = row
    self._count += 1

  def row(self, number: int) -> np.ndarray:
    return self._rows[number]

  def block(self, start: int, stop: int) -> np.ndarray:
    return self._rows[: self._count, start:stop].astype(np.float32, copy=False)

  def replace(self, blocks: Iterator[np.ndarray], num_rows: int) -> None:
    start = 0
    for block in blocks:
      stop = start + block.shape[1]
      self._rows[:num_rows, start:stop] = block
      start = stop
    self._rows[num_rows] = self._rows[self._count - 1]
    self._count = num_rows + 1


class HostVectors:
  """A `KrylovVectors` on rows in host memory or in files."""

  def __init__(self, rows: Rows):
    self.rows = rows

  @property
  def num_columns(self) -> int:
    return self.rows.num_columns

  def __len__(self) -> int:
    return len(self.rows)

  def append(self, vector: types.Array, norm: float) -> float:
    scaled = _flat(vector) / np.float32(norm)
    stored = scaled.astype(self.rows.dtype)
    self.rows.append(stored)
    if self.rows.dtype == np.float32:
      return 0.0
    error = sum(
      float(np.sum(np.square(scaled[s] - stored[s].astype(np.float32))))
      for s in self._column_slices()
    )
    return float(np.sqrt(multi_device.sum_over_processes(np.array(error))))

  def vector(self, number: int) -> jax.Array:
    row = self.rows.row(number).astype(np.float32, copy=False)
    return multi_device.place(row.reshape(jax.local_device_count(), -1))

  def overlaps(self, vector: types.Array) -> np.ndarray:
    return self._overlaps(_flat(vector))

  def _overlaps(self, flat: np.ndarray) -> np.ndarray:
    total = np.zeros(len(self.rows))
    for columns in self._column_slices():
      block = self.rows.block(columns.start, columns.stop)
      total += host_products.matmul(block, flat[columns])
    return multi_device.sum_over_processes(total)

  def orthogonalise(
    self, vector: types.Array, expected: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray, float]:
    flat = _flat(vector)
    known = expected
    if len(self):
      known = np.append(expected, self._overlap_with_last(flat))
    residual = np.empty_like(flat)

    def take_out(vector, known):
      return self._take_out(vector, known, residual)

    return gram_schmidt.orthogonalise(take_out, flat, known)

  def _overlap_with_last(self, flat: np.ndarray) -> float:
    row = self.rows.row(len(self) - 1)
    total = sum(
      float(row[columns].astype(np.float32, copy=False) @ flat[columns])
      for columns in self._column_slices()
    )
    return float(multi_device.sum_over_processes(np.array(total)))

  def _take_out(
    self, vector: np.ndarray, known: np.ndarray, residual: np.ndarray
  ) -> gram_schmidt.Pass:
    used = np.flatnonzero(known)
    taken = known[used].astype(np.float32)
    missed, before = np.zeros(len(self)), 0.0
    all_columns = list(self._column_slices())
    for columns in all_columns:
      block = self.rows.block(columns.start, columns.stop)
      part = vector[columns] - host_products.matmul(taken, block[used])
      residual[columns] = part
      missed += host_products.matmul(block, part)
      before += float(part @ part)
    missed = multi_device.sum_over_processes(missed)
    taken, after = missed.astype(np.float32), 0.0
    # Backwards, since what was read last may still be in a cache.
    for columns in reversed(all_columns):
      block = self.rows.block(columns.start, columns.stop)
      part = residual[columns]
      part -= host_products.matmul(taken, block)
      after += float(part @ part)
    before, after = multi_device.sum_over_processes(np.array([before, after]))
    return gram_schmidt.Pass(residual, missed, float(before), float(after))

  def combine(
    self, coefficients: np.ndarray, start: int, stop: int
  ) -> np.ndarray:
    coefficients = coefficients.astype(np.float32)
    combined = np.empty((len(coefficients), stop - start), np.float32)
    for columns in self._column_slices(start, stop):
      block = self.rows.block(columns.start, columns.stop)
      combined[:, columns.start - start : columns.stop - start] = (
        host_products.matmul(coefficients, block[: coefficients.shape[1]])
      )
    return combined

  def restart(self, coefficients: np.ndarray) -> None:
    blocks = (
      self.combine(coefficients, columns.start, columns.stop)
      for columns in self._column_slices()
    )
    self.rows.replace(blocks, len(coefficients))

  def gram(self, other: Self) -> np.ndarray:
    total = np.zeros((len(self), len(other)))
    for columns in self._column_slices():
      # A copy, because both may read into the same buffer.
      block = np.array(self.rows.block(columns.start, columns.stop))
      others = other.rows.block(columns.start, columns.stop)
      total += host_products.matmul(block, others.T)
    return multi_device.sum_over_processes(total)

  def _column_slices(
    self, start: int = 0, stop: int | None = None
  ) -> Iterator[slice]:
    stop = self.rows.num_columns if stop is None else stop
    width = self.rows.block_columns
    while start < stop:
      end = min(start - start % width + width, stop)
      yield slice(start, end)
      start = end


def orthogonality_error(vectors: KrylovVectors) -> float:
  """max |Q Q^T - I| over the stored vectors Q."""
  gram = vectors.gram(vectors)
  return float(np.abs(gram - np.eye(len(gram))).max())


def _flat(vector: types.Array) -> np.ndarray:
  return np.asarray(vector, np.float32).reshape(-1)
