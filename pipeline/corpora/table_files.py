"""Rows of Parquet and Arrow files.

Lists of numbers are numpy arrays; dates and times are those of Python, in
nanoseconds those of numpy, in UTC.
"""

import abc
from collections.abc import Iterator, Mapping, Sequence
import contextlib
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from pipeline.corpora import parquet_files, pieces, recent
from pipeline.storage import files as storage, machine_cache

# Files that are mapped at a time.
_MAX_OPEN = 64


class _TableRows(abc.ABC):
  """Takes rows out of tables."""

  @abc.abstractmethod
  def _table(self, path: str, positions: Sequence[int]) -> pa.Table:
    """Rows of a file, in the order of `positions`."""

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    with _decoding(path):
      return _rows(self._table(path, positions))

  def read_columns(
    self, path: str, start: int, stop: int
  ) -> dict[str, np.ndarray]:
    with _decoding(path):
      table = self._table(path, range(start, stop))
      found = {name: _array(table.column(name)) for name in table.column_names}
    return {name: array for name, array in found.items() if array is not None}


class ParquetRows(_TableRows):
  """Rows of Parquet files."""

  def __init__(self, columns: Sequence[str]):
    self._files = parquet_files.ParquetFiles(columns)

  def num_rows(self, path: str) -> int:
    return self._files.num_rows(path)

  def _table(self, path: str, positions: Sequence[int]) -> pa.Table:
    return self._files.read(path, positions)


class _MappedTable(NamedTuple):
  """A local file, and what is in it."""

  file: recent.MappedFile
  table: pieces.Pieces


class ArrowRows(_TableRows):
  """Rows of Arrow files, mapped into memory.

  Remote files are copied to this machine once, compressed ones unpacked there.
  """

  def __init__(self, columns: Sequence[str]):
    self._columns = list(columns)
    self._mapped = recent.keep_last(self._open, _MAX_OPEN)

  def num_rows(self, path: str) -> int:
    return int(self._mapped(path).table.edges[-1])

  def _table(self, path: str, positions: Sequence[int]) -> pa.Table:
    mapped = self._mapped(path)
    mapped.file.check_unchanged()
    slices = list(mapped.table.slices(positions))
    for batch in slices:
      batch.validate(full=True)  # Wrong places would end the process.
    return pa.Table.from_batches(slices)

  def _open(self, path: str) -> _MappedTable:
    local = machine_cache.local_file(path)
    try:
      if pieces.is_compressed(local):
        compressed = pieces.map_file(local)
        local = machine_cache.make_once(
          path, 'plain', lambda target: pieces.write_file(target, compressed)
        )
      file = recent.MappedFile.of(local)
      batches = [self._choose(path, x) for x in pieces.map_file(local)]
    except (OSError, pa.ArrowException) as error:
      raise storage.DamagedFileError(
        f'{path} is no Arrow file ({errors.first_line(error)}); write it again'
      ) from error
    return _MappedTable(file, pieces.Pieces.of(batches))

  def _choose(self, path: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    recent.check_columns(path, self._columns, batch.schema.names)
    return batch.select(self._columns) if self._columns else batch


@contextlib.contextmanager
def _decoding(path: str) -> Iterator[None]:
  """Values that Python lacks: years past 9999, texts that are no UTF-8."""
  try:
    yield
  except errors.InputError:
    raise
  except (ValueError, OverflowError, pa.ArrowException) as error:
    raise RuntimeError(
      f'rows of {path} cannot be read ({errors.first_line(error)})'
    ) from error


def _rows(table: pa.Table) -> list[Mapping[str, Any]]:
  """Rows as dictionaries."""
  columns = {name: _values(table.column(name)) for name in table.column_names}
  return [
    dict(zip(columns, row, strict=True))
    for row in zip(*columns.values(), strict=True)
  ]


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
  """Values of a column for Python; of lists of numbers, arrays of their own."""
  kind = column.type
  if isinstance(kind, pa.FixedShapeTensorType):
    return [x.to_numpy() if x.is_valid else None for x in column]
  if _is_list(kind) and pa.types.is_primitive(kind.value_type):
    return [
      np.array(x.values.to_numpy(zero_copy_only=False)) if x.is_valid else None
      for x in column
    ]
  if pa.types.is_temporal(kind) and getattr(kind, 'unit', '') == 'ns':
    # Python's own end at microseconds.
    scalar = np.datetime64 if pa.types.is_timestamp(kind) else np.timedelta64
    counts = column.cast(pa.int64()).to_pylist()
    return [None if x is None else scalar(x, 'ns') for x in counts]
  return column.to_pylist()


def _array(column: pa.ChunkedArray) -> np.ndarray | None:
  """[rows, ...] what `np.stack` makes of `_values`; None where not known."""
  kind = column.type
  if column.null_count:
    return None
  if pa.types.is_float32(kind) or pa.types.is_float64(kind):
    return column.to_numpy().astype(float)
  if pa.types.is_integer(kind) and kind != pa.uint64():
    return column.to_numpy().astype(int)
  if not _is_list(kind) or not _is_number(kind.value_type):
    return None
  lists = pa.concat_arrays(column.chunks)
  lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
  values = lists.flatten()
  if len(lengths) != 1 or values.null_count:
    return None
  return values.to_numpy().reshape(len(lists), *lengths)


def _is_list(kind: pa.DataType) -> bool:
  return (
    pa.types.is_fixed_size_list(kind)
    or pa.types.is_list(kind)
    or pa.types.is_large_list(kind)
  )


def _is_number(kind: pa.DataType) -> bool:
  return pa.types.is_integer(kind) or pa.types.is_floating(kind)
