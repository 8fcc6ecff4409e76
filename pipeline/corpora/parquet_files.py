"""Rows of Parquet files by position, row group by row group.

A row can only be read by decoding its row group from the beginning. So groups
are kept in memory while they are read; one that is large is decoded once, in
pieces, to the disk of this machine, and its rows are read from there.
"""

from collections.abc import Iterator, Sequence
import contextlib
import itertools
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import errors
from influence_core.devices import memory
from pipeline.corpora import pieces, recent
from pipeline.corpora.corpus import READ_TOGETHER
from pipeline.storage import files as storage, fingerprints, machine_cache

# Open files, which the system bounds.
_MAX_OPEN = 64
# Row groups in memory at a time, so that a range that goes on in the next one
# reads each once.
_MAX_GROUPS = 4
# Of a group that is kept in memory: the encoded sizes of its columns, and rows,
# since what repeats is encoded in next to nothing.
_MAX_GROUP_BYTES, _MAX_GROUP_ROWS = 1 << 27, 1 << 20
# Of a larger one, read at a time and decoded at a time.
_BUFFER_BYTES = 1 << 22
_PIECE_BYTES, _PIECE_ROWS = 1 << 24, 1 << 16


class _OpenFile(NamedTuple):
  """A file, and the first row of each row group, with the end of the last."""

  rows: pq.ParquetFile
  edges: Sequence[int]


class ParquetFiles:
  """Reads rows, with few files open and few row groups in memory."""

  def __init__(self, columns: Sequence[str] = ()):
    """Opens nothing yet.

    Args:
      columns: to read; empty for all.
    """
    self._columns = columns
    self._file = recent.keep_last(self._open, _MAX_OPEN)
    self._group = recent.keep_last(self._read_group, _MAX_GROUPS)

  def num_rows(self, path: str) -> int:
    """Rows of a file, from its footer.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
    """
    return self._file(path).rows.metadata.num_rows

  def read(self, path: str, positions: Sequence[int]) -> pa.Table:
    """Rows of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
      errors.InputError: Memory or disk have no room for a row group.
      RuntimeError: A row cannot be read, or is not there.
    """
    runs = list(pieces.runs(self._file(path).edges, positions))
    found: list[list[pa.RecordBatch]] = [[] for _ in runs]
    # Group by group, so that none is read twice.
    for place in sorted(range(len(runs)), key=lambda place: runs[place]):
      number, start, length = runs[place]
      group = self._group(path, number)
      if isinstance(group, RuntimeError):
        raise RuntimeError(*group.args)
      found[place] += group.slices(range(start, start + length))
    return pa.Table.from_batches(itertools.chain.from_iterable(found))

  def _open(self, path: str) -> _OpenFile:
    rows = _open_parquet(path, pre_buffer=True)
    recent.check_columns(path, self._columns, rows.schema_arrow.names)
    groups = map(rows.metadata.row_group, range(rows.num_row_groups))
    return _OpenFile(rows, pieces.edges_of(x.num_rows for x in groups))

  def _read_group(self, path: str, number: int) -> pieces.Pieces | RuntimeError:
    """A row group, or why it cannot be read, which is found out once."""
    try:
      num_bytes, num_rows = self._size(path, number)
      if num_bytes > _MAX_GROUP_BYTES or num_rows > _MAX_GROUP_ROWS:
        return self._copy_group(path, number, num_bytes, num_rows)
      with _decoding(path, number):
        group = self._file(path).rows.read_row_group(number, self._names)
      return pieces.Pieces.of(group.to_batches())
    except RuntimeError as error:
      return error

  @property
  def _names(self) -> list[str] | None:
    return list(self._columns) or None

  def _size(self, path: str, number: int) -> tuple[int, int]:
    """Bytes of what is read of a group, before compression, and its rows."""
    group = self._file(path).rows.metadata.row_group(number)
    tops = tuple(f'{name}.' for name in self._columns) or ('',)
    num_bytes = sum(
      chunk.total_uncompressed_size
      for chunk in map(group.column, range(group.num_columns))
      if f'{chunk.path_in_schema}.'.startswith(tops)
    )
    return num_bytes, group.num_rows

  def _copy_group(
    self, path: str, number: int, num_bytes: int, num_rows: int
  ) -> pieces.Pieces:
    """A row group on the disk of this machine, made in pieces."""
    row_bytes = num_bytes / num_rows
    memory.check_host_memory(
      row_bytes * READ_TOGETHER,
      f'{READ_TOGETHER} rows of {path}, which are read together,',
      'read fewer columns or write smaller rows',
    )

    def read() -> Iterator[pa.RecordBatch]:
      rows = _open_parquet(path, pre_buffer=False, buffer_size=_BUFFER_BYTES)
      with _decoding(path, number):
        yield from rows.iter_batches(
          min(_PIECE_ROWS, 1 + int(_PIECE_BYTES / row_bytes)),
          [number],
          self._names,
        )

    name = f'group-{number}-{fingerprints.of_json(self._columns)}'
    copy = machine_cache.make_once(
      path,
      name,
      lambda target: pieces.write_file(target, read()),
      num_bytes=num_bytes,
    )
    return pieces.Pieces.of(pieces.map_file(copy))


def _open_parquet(path: str, **options: Any) -> pq.ParquetFile:
  try:
    stream = storage.open_for_reading(path)
    return pq.ParquetFile(stream, page_checksum_verification=True, **options)
  except (OSError, pa.ArrowException) as error:
    raise storage.DamagedFileError(
      f'{path} is no Parquet file ({errors.first_line(error)}); write it again'
    ) from error


@contextlib.contextmanager
def _decoding(path: str, number: int) -> Iterator[None]:
  try:
    yield
  except (OSError, pa.ArrowException) as error:
    raise RuntimeError(
      f'row group {number} of {path} cannot be read '
      f'({errors.first_line(error)})'
    ) from error
