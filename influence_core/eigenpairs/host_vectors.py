"""Krylov vectors in host memory or in files, with work block by block.

Columns of all vectors are read a block at a time, and all that is done to the
vectors is done to that block, so that they are never held twice.
"""

from collections.abc import Iterator
from typing import Self

import jax
import numpy as np

from influence_core import types
from influence_core.devices import host_products, multi_device
from influence_core.eigenpairs import gram_schmidt, krylov_vectors


class MemoryRows:
  """Rows of one array in host memory."""

  def __init__(self, capacity: int, num_columns: int, dtype: np.dtype):
    self.block_columns = krylov_vectors.BLOCK_COLUMNS
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

  def __init__(self, rows: krylov_vectors.Rows):
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


def _flat(vector: types.Array) -> np.ndarray:
  return np.asarray(vector, np.float32).reshape(-1)
