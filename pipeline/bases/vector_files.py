"""Krylov vectors as files: this process's columns of each, durable at once.

    DIRECTORY/vector-00007.bin

They are read again in chunks of columns of all vectors, for blocks of which
`krylov_vectors` forms overlaps and combinations.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import os

import numpy as np

from influence_core.eigenpairs import krylov_vectors
from pipeline.storage import checked_files, files as storage

# Bytes read from each file at a time, for many blocks.
_CHUNK_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class KeptVectors:
  """Which files vectors are in, and the number of the next one."""

  rows: tuple[checked_files.StoredFile, ...]
  next: int

  def __post_init__(self):
    for file in self.rows:
      checked_files.check_file(file)


class VectorFiles:
  """Vectors as files: `krylov_vectors.Rows`.

  `append` and `row` work on any storage, `block` on local files only.

  Attributes:
    directory: of this process.
    num_columns: entries of a vector that this process has.
    dtype: float32 or bfloat16.
    block_columns: columns of a block.
  """

  def __init__(self, directory: str, num_columns: int, dtype: np.dtype):
    self.directory = storage.absolute(directory)
    self.num_columns = num_columns
    self.dtype = dtype
    self.block_columns = krylov_vectors.BLOCK_COLUMNS
    self._chunk_columns = _CHUNK_BYTES // dtype.itemsize
    self._rows: list[checked_files.StoredFile] = []
    self._next = 0
    self._chunk = 0
    self._chunk_rows = np.zeros((0, self._chunk_columns), dtype)

  def __len__(self) -> int:
    return len(self._rows)

  def append(self, row: np.ndarray) -> None:
    name = f'vector-{self._next:05d}.bin'
    data = np.ascontiguousarray(row).view(np.uint8).data
    path = storage.join(self.directory, name)
    if not storage.create_exclusive(path, data):
      # Left by an attempt that was killed before it wrote the state.
      storage.remove(path)
      storage.create_exclusive(path, data)
    self._next += 1
    self._rows.append(
      checked_files.StoredFile(name, data.nbytes, checked_files.checksum(data))
    )

  def row(self, number: int) -> np.ndarray:
    file = self._rows[number]
    data = checked_files.read_checked(
      storage.join(self.directory, file.name), file
    )
    return np.frombuffer(data, self.dtype)

  def block(self, start: int, stop: int) -> np.ndarray:
    chunk, first = divmod(start, self._chunk_columns)
    if chunk != self._chunk or len(self._chunk_rows) != len(self):
      self._read_chunk(chunk)
    block = self._chunk_rows[:, first : first + stop - start]
    return block.astype(np.float32, copy=False)

  def kept(self) -> KeptVectors:
    return KeptVectors(tuple(self._rows), self._next)

  def go_back(self, kept: KeptVectors) -> None:
    """To the vectors that there were."""
    self._start_again(kept.rows)
    self._next = kept.next

  def clear(self) -> None:
    """Forgets all vectors; their files stay until `remove_all_but`."""
    self._start_again([])

  def _start_again(self, rows: Sequence[checked_files.StoredFile]) -> None:
    """With other rows, of which no chunk has been read."""
    self._rows = list(rows)
    self._chunk_rows = self._chunk_rows[:0]

  def _read_chunk(self, chunk: int) -> None:
    """Columns of all rows, of which blocks are made."""
    if len(self._chunk_rows) != len(self):
      self._chunk_rows = np.empty((len(self), self._chunk_columns), self.dtype)
    upcoming = max(0, 2 * chunk - self._chunk)  # The same way on.
    self._chunk = chunk
    left = self.num_columns * self.dtype.itemsize - chunk * _CHUNK_BYTES
    for target, file in zip(self._chunk_rows, self._rows, strict=True):
      path = os.path.join(self.directory, file.name)
      view = target.view(np.uint8).data[:left]
      if _read_into(view, path, chunk, upcoming) != view.nbytes:
        raise storage.DamagedFileError(
          f'{self.directory}/{file.name} is truncated; delete the directory '
          'to begin again'
        )

  def replace(self, blocks: Iterator[np.ndarray], num_rows: int) -> None:
    """Writes new rows beside the old ones, whose files stay for the present."""
    scratch = [
      os.path.join(self.directory, f'restart-{number:05d}.tmp')
      for number in range(num_rows)
    ]
    for path in scratch:  # Left by an attempt that was killed.
      with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    for columns in _joined(blocks, self._chunk_columns):
      for path, part in zip(scratch, columns, strict=True):
        with open(path, 'ab') as file:
          file.write(part.astype(self.dtype).view(np.uint8).data)
    last = self._rows[-1]
    self.clear()
    for path in scratch:
      self.append(np.fromfile(path, self.dtype))
      os.unlink(path)
    self._rows.append(last)

  def verify(self) -> None:
    """Reads every vector.

    Raises:
      storage.DamagedFileError: One is missing, truncated or altered.
    """
    for number in range(len(self)):
      self.row(number)

  def remove_all_but(self, needed: set[str]) -> None:
    """Deletes vectors that are neither these nor named."""
    needed = needed | {file.name for file in self._rows}
    for name in storage.list_names(self.directory):
      if name.startswith('vector-') and name not in needed:
        storage.remove(storage.join(self.directory, name))


def _joined(
  blocks: Iterator[np.ndarray], num_columns: int
) -> Iterator[np.ndarray]:
  """Blocks that follow each other as wider ones, of `num_columns` or more."""
  waiting: list[np.ndarray] = []
  for block in blocks:
    waiting.append(block)
    if sum(part.shape[1] for part in waiting) >= num_columns:
      yield np.concatenate(waiting, axis=1)
      waiting = []
  if waiting:
    yield np.concatenate(waiting, axis=1)


def _read_into(view: memoryview, path: str, chunk: int, upcoming: int) -> int:
  """Reads a chunk of a file, and lets the system read another one ahead.

  The file is open for this alone: an iteration has more vectors than a process
  may have files, and opening one costs little beside reading a chunk.

  Returns:
    How many bytes there were.
  """
  descriptor = os.open(path, os.O_RDONLY)
  try:
    if hasattr(os, 'posix_fadvise'):  # Not on every system.
      os.posix_fadvise(
        descriptor,
        upcoming * _CHUNK_BYTES,
        _CHUNK_BYTES,
        os.POSIX_FADV_WILLNEED,
      )
    return os.preadv(descriptor, [view], chunk * _CHUNK_BYTES)
  finally:
    os.close(descriptor)
