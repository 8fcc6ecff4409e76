"""An Arnoldi iteration on storage: every vector durable before the next begins.

    DIRECTORY/config.json          what the iteration is; it must not change
    DIRECTORY/vector-00007.bin     this process's columns of a Krylov vector
    DIRECTORY/state-000007.json    all else after product 7, names its vectors

A state is written when its vectors are durable, so whatever is killed, the last
state is whole. Each process has a directory of its own. The two latest states
are kept, since processes may be killed a step apart.
"""

import base64
from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import os
from typing import Any

import numpy as np

from influence_core import errors
from influence_core.eigenpairs import arnoldi, krylov_vectors
from pipeline.storage import checked_files, files as storage, fingerprints

# Bytes read from each file at a time, for many blocks.
_CHUNK_BYTES = 1 << 20
_NUM_KEPT_STATES = 2
# Of states; another one is not gone on with.
_FORMAT = 2


class KrylovFiles:
  """The vectors of an iteration as files: `krylov_vectors.Rows`.

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
    self._rows: list[dict[str, Any]] = []
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
    file = checked_files.StoredFile(
      name, data.nbytes, checked_files.checksum(data)
    )
    self._rows.append(dataclasses.asdict(file))

  def row(self, number: int) -> np.ndarray:
    row = self._rows[number]
    data = checked_files.read_checked(
      storage.join(self.directory, row['name']), checked_files.StoredFile(**row)
    )
    return np.frombuffer(data, self.dtype)

  def block(self, start: int, stop: int) -> np.ndarray:
    chunk, first = divmod(start, self._chunk_columns)
    if chunk != self._chunk or len(self._chunk_rows) != len(self):
      self._read_chunk(chunk)
    block = self._chunk_rows[:, first : first + stop - start]
    return block.astype(np.float32, copy=False)

  def _start_again(self, rows: list[dict[str, Any]]) -> None:
    """With other rows, of which no chunk has been read."""
    self._rows = rows
    self._chunk_rows = self._chunk_rows[:0]

  def _read_chunk(self, chunk: int) -> None:
    """Columns of all rows, of which blocks are made."""
    if len(self._chunk_rows) != len(self):
      self._chunk_rows = np.empty((len(self), self._chunk_columns), self.dtype)
    upcoming = max(0, 2 * chunk - self._chunk)  # The same way on.
    self._chunk = chunk
    left = self.num_columns * self.dtype.itemsize - chunk * _CHUNK_BYTES
    for target, row in zip(self._chunk_rows, self._rows, strict=True):
      path = os.path.join(self.directory, row['name'])
      view = target.view(np.uint8).data[:left]
      if _read_into(view, path, chunk, upcoming) != view.nbytes:
        raise storage.DamagedFileError(
          f'{self.directory}/{row["name"]} is truncated; delete the directory '
          'to begin again'
        )

  def replace(self, blocks: Iterator[np.ndarray], num_rows: int) -> None:
    """Writes new rows beside the old ones, which stay until `save_state`."""
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
    self._start_again([])
    for path in scratch:
      self.append(np.fromfile(path, self.dtype))
      os.unlink(path)
    self._rows.append(last)

  def mirror(
    self, vectors: krylov_vectors.KrylovVectors, state: arnoldi.ArnoldiState
  ) -> None:
    """Brings the files up to vectors that are kept elsewhere."""
    if state.num_vectors < len(self):  # After a restart nothing is the same.
      self._start_again([])
    for number in range(len(self), state.num_vectors):
      row = np.asarray(vectors.vector(number)).reshape(-1)
      self.append(row.astype(self.dtype))

  def save_state(self, state: arnoldi.ArnoldiState) -> None:
    """Makes the state durable, then removes what no kept state needs."""
    content = {
      'rows': self._rows,
      'next': self._next,
      # As text it would take longer to write than a step takes.
      'hessenberg': base64.b64encode(
        state.hessenberg.astype('<f8').tobytes()
      ).decode(),
      'rounding': state.rounding.tolist(),
      'num_products': state.num_products,
      'scale': state.scale,
      'broke_down': state.broke_down,
    }
    path = self._state_path(state.num_products)
    if storage.create_exclusive(path, checked_files.encode_json(content)):
      self._remove_unneeded()

  def newest(self) -> int:
    """Products done at the last state; -1 if there is none."""
    return max(self._states(), default=-1)

  def load_state(self, num_products: int) -> arnoldi.ArnoldiState:
    """Goes back to a state that is there, and to its vectors.

    Raises:
      storage.DamagedFileError: Something of it is damaged.
    """
    content = checked_files.read_json(self._state_path(num_products))
    self._start_again(content['rows'])
    self._next = content['next']
    for number in self._states():
      if number > num_products:
        storage.remove(self._state_path(number))
    hessenberg = np.frombuffer(
      base64.b64decode(content['hessenberg']), '<f8'
    ).copy()
    columns = len(content['rounding'])
    return arnoldi.ArnoldiState(
      hessenberg.reshape(columns + 1, columns),
      np.array(content['rounding'], np.float64),
      content['num_products'],
      content['scale'],
      content['broke_down'],
    )

  def verify(self) -> None:
    """Reads every vector.

    Raises:
      storage.DamagedFileError: One is missing, truncated or altered.
    """
    for number in range(len(self)):
      self.row(number)

  def claim(self, config: Mapping[str, Any]) -> None:
    """Says what iteration this is, or checks that it is the same.

    Raises:
      errors.InputError: Another iteration is kept here.
    """
    path = storage.join(self.directory, 'config.json')
    config = {**config, 'format': _FORMAT}
    if storage.create_exclusive(path, checked_files.encode_json(config)):
      return
    if difference := fingerprints.first_difference(
      checked_files.read_json(path), config
    ):
      name, found, value = difference
      raise errors.InputError(
        f'{self.directory} holds an unfinished iteration with {name} {found}, '
        f'not {value}; finish it with the same options, or delete the directory'
      )

  def remove(self) -> None:
    """Deletes the iteration."""
    storage.remove_directory(self.directory)

  def _state_path(self, num_products: int) -> str:
    return storage.join(self.directory, f'state-{num_products:06d}.json')

  def _states(self) -> list[int]:
    return [
      int(name.removeprefix('state-').removesuffix('.json'))
      for name in storage.list_names(self.directory)
      if name.startswith('state-') and name.endswith('.json')
    ]

  def _remove_unneeded(self) -> None:
    states = sorted(self._states())
    kept, old = states[-_NUM_KEPT_STATES:], states[:-_NUM_KEPT_STATES]
    for number in old:
      storage.remove(self._state_path(number))
    needed = {row['name'] for row in self._rows}
    for number in kept:
      rows = checked_files.read_json(self._state_path(number))['rows']
      needed |= {row['name'] for row in rows}
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
