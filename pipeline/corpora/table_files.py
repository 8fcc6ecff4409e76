"""Rows of Parquet and Arrow files."""

from collections.abc import Mapping, Sequence
import pathlib
import shutil
from typing import Any

import pyarrow as pa

from influence_core import errors
from pipeline.corpora import parquet_files
from pipeline.storage import files as storage, machine_cache


class ParquetRows:
  """Rows of Parquet files; lists of numbers are numpy arrays."""

  def __init__(self, columns: Sequence[str]):
    self._files = parquet_files.ParquetFiles(columns or None)

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
    self._tables: dict[str, pa.Table] = {}

  def num_rows(self, path: str) -> int:
    return self._table(path).num_rows

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    try:
      return _rows(self._table(path).take(pa.array(positions, pa.int64())))
    except (pa.ArrowIndexError, pa.ArrowInvalid) as error:
      raise RuntimeError(f'rows of {path} cannot be read ({error})') from error

  def _table(self, path: str) -> pa.Table:
    if path not in self._tables:
      local = path
      if not storage.is_local(path):
        local = machine_cache.made_once(
          path, 'copy', lambda target: _copy(path, target)
        )
      elif not storage.exists(path):
        raise storage.DamagedFileError(f'{path} is missing')
      try:
        table = _map_arrow(local)
      except (pa.ArrowInvalid, OSError) as error:
        raise storage.DamagedFileError(
          f'{path} is no Arrow file ({error}); write it again'
        ) from error
      if absent := set(self._columns) - set(table.column_names):
        raise errors.InputError(
          f'{path} has no column {", ".join(sorted(absent))}; it has '
          f'{", ".join(table.column_names)}'
        )
      self._tables[path] = table.select(self._columns or table.column_names)
    return self._tables[path]


def _map_arrow(path: str) -> pa.Table:
  """A file or a stream of Arrow, whichever it is, without reading it."""
  try:
    return pa.ipc.open_file(pa.memory_map(path)).read_all()
  except pa.ArrowInvalid:
    return pa.ipc.open_stream(pa.memory_map(path)).read_all()


def _copy(path: str, target: pathlib.Path) -> None:
  with storage.open_for_reading(path) as source, open(target, 'wb') as file:
    shutil.copyfileobj(source, file, 1 << 23)


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
