"""Rows of Parquet and Arrow files."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.corpora import parquet_files, recent
from pipeline.storage import files as storage, machine_cache

# Files that are mapped at a time.
_MAX_OPEN = 64


class ParquetRows:
  """Rows of Parquet files; lists of numbers are numpy arrays."""

  def __init__(self, columns: Sequence[str]):
    self._files = parquet_files.ParquetFiles(columns)

  def num_rows(self, path: str) -> int:
    return self._files.num_rows(path)

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    return _rows(self._files.read(path, positions))


class ArrowRows:
  """Rows of Arrow files, mapped into memory; remote ones are copied once."""

  def __init__(self, columns: Sequence[str]):
    self._columns = columns
    self._table = recent.keep_last(self._open, _MAX_OPEN)

  def num_rows(self, path: str) -> int:
    return self._table(path).num_rows

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    try:
      return _rows(self._table(path).take(pa.array(positions, pa.int64())))
    except (pa.ArrowIndexError, pa.ArrowInvalid) as error:
      raise RuntimeError(f'rows of {path} cannot be read ({error})') from error

  def _open(self, path: str) -> pa.Table:
    try:
      table = _map_arrow(machine_cache.local_file(path))
    except (pa.ArrowInvalid, OSError) as error:
      raise storage.DamagedFileError(
        f'{path} is no Arrow file ({error}); write it again'
      ) from error
    recent.check_columns(path, self._columns, table.column_names)
    return table.select(self._columns or table.column_names)


def _map_arrow(path: str) -> pa.Table:
  """A file or a stream of Arrow, whichever it is, without reading it."""
  try:
    return pa.ipc.open_file(pa.memory_map(path)).read_all()
  except pa.ArrowInvalid:
    return pa.ipc.open_stream(pa.memory_map(path)).read_all()


def _rows(table: pa.Table) -> list[Mapping[str, Any]]:
  """Rows as dictionaries; lists of numbers are numpy arrays."""
  columns = {name: _values(table.column(name)) for name in table.column_names}
  return [
    dict(zip(columns, row, strict=True))
    for row in zip(*columns.values(), strict=True)
  ]


def _values(column: pa.ChunkedArray) -> Sequence[Any]:
  """Values of a column for Python; of lists of numbers, arrays."""
  kind = column.type
  if (
    pa.types.is_fixed_size_list(kind)
    or pa.types.is_list(kind)
    or pa.types.is_large_list(kind)
  ) and pa.types.is_primitive(kind.value_type):
    return [
      value.values.to_numpy(zero_copy_only=False) if value.is_valid else None
      for value in column
    ]
  return column.to_pylist()
