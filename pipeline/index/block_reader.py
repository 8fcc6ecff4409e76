"""Rows of a published generation block by block, read ahead in bounded memory.

Files are read in pieces, several at a time where they are far away, and their
checksums follow along. A damaged file is told at the latest after its last
block: nobody may use what came from it before the end of its shard.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
import concurrent.futures
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from influence_core import types
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  shard_files,
)
from pipeline.storage import checked_files, files as storage

# Pieces read at a time: two keep a disk busy from file to file, an object store
# answers many requests at once.
_LOCAL_READERS = 2
_REMOTE_READERS = 8
# Stored bytes of a piece, and decoded bytes of a block, which stays in a cache.
_PIECE_BYTES = 1 << 22
_BLOCK_BYTES = 1 << 22


class ReadBlock(NamedTuple):
  """Rows that follow each other.

  Attributes:
    first: position of the first one in the generation.
    vectors: [num_rows, projection_dim] float32.
    rows: table of num_rows rows; empty where no column was asked for.
  """

  first: int
  vectors: np.ndarray
  rows: pa.Table


class _Piece(NamedTuple):
  """Bytes [start, stop) of a vectors file."""

  shard: index_format.Shard
  start: int
  stop: int

  @property
  def is_last(self) -> bool:
    return self.stop == self.shard.vectors.num_bytes


def read_blocks(
  index: str,
  manifest: manifest_lib.Manifest,
  *,
  columns: Sequence[str] = (),
  numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[ReadBlock]:
  """Checked rows in order.

  Args:
    index: directory of the index.
    manifest: the generation to read.
    columns: columns of the rows that are wanted; the file is not read for none.
    numbers: of the shards to read, in increasing order; None for all.
    progress: called with the examples that were handed out.

  Raises:
    storage.DamagedFileError: Names the file and what is wrong with it.
  """
  reader = _Reader(index, manifest, columns)
  firsts = np.cumsum([0, *(shard.num_written for shard in manifest.shards)])
  if numbers is None:
    numbers = range(len(manifest.shards))
  shards = [manifest.shards[number] for number in numbers]
  pieces = (piece for shard in shards for piece in reader.pieces(shard))
  num_readers = _LOCAL_READERS if storage.is_local(index) else _REMOTE_READERS
  num_done = 0
  with concurrent.futures.ThreadPoolExecutor(num_readers) as pool:
    contents = _ahead(pool, reader.read, pieces, 2 * num_readers)
    for number, shard in zip(numbers, shards, strict=True):
      for block in reader.blocks(shard, int(firsts[number]), contents):
        yield block
        num_done += len(block.vectors)
        progress(num_done, manifest.num_examples)


class _Reader:
  """Reads pieces in threads and makes blocks of them."""

  def __init__(
    self,
    index: str,
    manifest: manifest_lib.Manifest,
    columns: Sequence[str],
  ):
    self._index = index
    self._codec = manifest.provenance.codec
    self._columns = list(dict.fromkeys(columns))
    self._piece_rows = max(1, _PIECE_BYTES // self._codec.file_dtype.itemsize)
    self._block_rows = max(1, _BLOCK_BYTES // (4 * self._codec.projection_dim))

  def pieces(self, shard: index_format.Shard) -> Iterator[_Piece]:
    """The pieces of a shard: whole rows, the first one with the header."""
    row_bytes = self._codec.file_dtype.itemsize
    header_bytes = shard_files.vectors_header_bytes(
      shard.vectors.num_bytes, shard.num_written, self._codec
    )
    start = 0
    for row in range(0, max(1, shard.num_written), self._piece_rows):
      last = min(row + self._piece_rows, shard.num_written)
      stop = header_bytes + last * row_bytes
      yield _Piece(shard, start, stop)
      start = stop

  def read(self, piece: _Piece) -> tuple[bytes, pa.Table | None]:
    """A piece, and with the first one the rows of its shard."""
    rows = None
    if self._columns and piece.start == 0:
      rows = index_format.read_rows(self._index, piece.shard, self._columns)
    path = index_format.vectors_path(self._index, piece.shard)
    # One byte more after the last row, so that a longer file is noticed.
    stop = piece.stop + piece.is_last
    return storage.read_range(path, piece.start, stop), rows

  def blocks(
    self,
    shard: index_format.Shard,
    position: int,
    contents: Iterator[tuple[bytes, pa.Table | None]],
  ) -> Iterator[ReadBlock]:
    """Blocks of a shard, of the pieces that come next."""
    path = index_format.vectors_path(self._index, shard)
    check = checked_files.RunningCheck(path, shard.vectors)
    first, all_rows = position, pa.table({})
    for piece in self.pieces(shard):
      data, rows = next(contents)
      check.add(data)
      if rows is not None:
        all_rows = rows
      if piece.is_last or len(data) != piece.stop - piece.start:
        # What follows in a file that is cut short does not matter.
        check.finish()
      offset = 0
      if piece.start == 0:
        offset = shard_files.rows_offset(
          path,
          data,
          shard.vectors.num_bytes,
          shard.num_written,
          self._codec,
        )
      stored = self._codec.rows(data, offset)
      for start in range(0, len(stored), self._block_rows):
        vectors = self._codec.decode(stored[start : start + self._block_rows])
        table = all_rows.slice(position - first, len(vectors))
        yield ReadBlock(position, vectors, table)
        position += len(vectors)


def _ahead(
  pool: concurrent.futures.Executor,
  function: Callable[[Any], Any],
  items: Iterable[Any],
  depth: int,
) -> Iterator[Any]:
  """Results in order, of which `depth` are worked at before they are needed."""
  waiting = collections.deque[concurrent.futures.Future]()
  for item in items:
    waiting.append(pool.submit(function, item))
    if len(waiting) > depth:
      yield waiting.popleft().result()
  while waiting:
    yield waiting.popleft().result()
