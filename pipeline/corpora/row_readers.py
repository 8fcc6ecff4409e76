"""Rows of files by kind, file and position: dictionaries by column."""

from collections.abc import Callable, Mapping, Sequence
import csv
import io
import json
import pathlib
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from influence_core import errors
from pipeline.corpora import extents, parquet_files
from pipeline.storage import files as storage, machine_cache

# Compressions of text, by the end of the name; the kind stands before it.
_COMPRESSIONS = {'.gz': 'gzip', '.zst': 'zstd'}


class RowReader(Protocol):
  """Reads rows, with little of the files open or in memory."""

  def num_rows(self, path: str) -> int:
    """Rows of a file.

    Raises:
      storage.DamagedFileError: It is missing, or is none of this kind.
    """
    ...

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    """Rows of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing.
      RuntimeError: A row cannot be read.
    """
    ...


class ParquetRows:
  """Rows of Parquet files; lists of numbers are numpy arrays."""

  def __init__(self, columns: Sequence[str]):
    self._files = parquet_files.ParquetFiles(columns or None)

  def num_rows(self, path: str) -> int:
    return self._files.num_rows(path)

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    table = self._files.read(path, positions)
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


class JsonLines:
  """Objects of JSON, one on each line."""

  def __init__(self, columns: Sequence[str]):
    self._columns = columns
    self._extents = extents.Extents('lines', extents.lines)

  def num_rows(self, path: str) -> int:
    return len(self._extents.find(_plain(path)))

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    rows = []
    for line in self._extents.read(_plain(path), positions):
      try:
        row = json.loads(line)
      except ValueError as error:
        raise RuntimeError(f'a line of {path} is no JSON ({error})') from error
      if not isinstance(row, dict):
        raise RuntimeError(
          f'a line of {path} is {type(row).__name__}, expected an object'
        )
      rows.append(_only(row, self._columns, path))
    return rows


class Csv:
  """Rows of a table in text, whose first line has the names of the columns."""

  def __init__(self, columns: Sequence[str], delimiter: str = ','):
    self._columns = columns
    self._delimiter = delimiter
    self._extents = extents.Extents('quoted_lines', extents.quoted_lines)

  def num_rows(self, path: str) -> int:
    return max(0, len(self._extents.find(_plain(path))) - 1)

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    plain = _plain(path)
    # The first line comes with them, so that nothing is to be kept.
    wanted = [0, *(x + 1 for x in positions)]
    header, *lines = self._extents.read(plain, wanted)
    names = self._cells(path, header)
    rows = []
    for line in lines:
      cells = self._cells(path, line)
      if len(cells) != len(names):
        raise RuntimeError(
          f'a row of {path} has {len(cells)} cells, expected {len(names)}'
        )
      row = dict(zip(names, cells, strict=True))
      rows.append(_only(row, self._columns, path))
    return rows

  def _cells(self, path: str, line: bytes) -> list[str]:
    try:
      text = line.decode('utf-8-sig').rstrip('\r')
      [cells] = csv.reader(io.StringIO(text), delimiter=self._delimiter)
    except (ValueError, csv.Error) as error:
      raise RuntimeError(f'a row of {path} cannot be read ({error})') from error
    return cells


class Arrays:
  """Arrays of one length in a .npz file, an example each row of all."""

  def __init__(self, columns: Sequence[str]):
    self._columns = columns
    self._loaded: dict[str, dict[str, np.ndarray]] = {}

  def num_rows(self, path: str) -> int:
    return len(next(iter(self._arrays(path).values())))

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    arrays = self._arrays(path)
    try:
      return [
        {name: array[position] for name, array in arrays.items()}
        for position in positions
      ]
    except IndexError as error:
      raise RuntimeError(f'{path} has no such row ({error})') from error

  def _arrays(self, path: str) -> dict[str, np.ndarray]:
    if path not in self._loaded:
      data = io.BytesIO(storage.read_bytes(path))
      try:
        with np.load(data, allow_pickle=False) as content:
          arrays = {name: content[name] for name in content.files}
      except (ValueError, OSError) as error:
        raise storage.DamagedFileError(
          f'{path} is no .npz file of arrays ({error}); write it again'
        ) from error
      lengths = {name: array.shape[:1] for name, array in arrays.items()}
      if len({*lengths.values()}) != 1 or () in lengths.values():
        raise storage.DamagedFileError(
          f'{path} has arrays of lengths {lengths}, expected one length'
        )
      try:
        self._loaded[path] = dict(_only(arrays, self._columns, path))
      except RuntimeError as error:
        raise errors.InputError(str(error)) from error
    return self._loaded[path]


def _only(
  row: Mapping[str, Any], columns: Sequence[str], path: str
) -> Mapping[str, Any]:
  try:
    return {name: row[name] for name in columns} if columns else row
  except KeyError as error:
    raise RuntimeError(
      f'{path} has no column {error}; it has {", ".join(row)}'
    ) from error


def _plain(path: str) -> str:
  """The path of a text as it is, or of a copy without compression."""
  compression = _COMPRESSIONS.get(pathlib.PurePath(path).suffix)
  if compression is None:
    return path
  return machine_cache.made_once(
    path, 'plain', lambda target: _decompress(path, compression, target)
  )


def _decompress(path: str, compression: str, target: pathlib.Path) -> None:
  with (
    storage.open_for_reading(path) as stream,
    open(target, 'wb') as file,
    pa.CompressedInputStream(stream, compression) as content,
  ):
    try:
      while piece := content.read(1 << 22):
        file.write(piece)
    except OSError as error:
      raise storage.DamagedFileError(
        f'{path} cannot be decompressed ({error}); write it again'
      ) from error


# By the ends of names.
READERS: dict[str, Callable[[Sequence[str]], RowReader]] = {
  '.parquet': ParquetRows,
  '.jsonl': JsonLines,
  '.csv': Csv,
  '.tsv': lambda columns: Csv(columns, '\t'),
  '.npz': Arrays,
}


def kind_of(name: str) -> str | None:
  """The key of `READERS` for a file; None for files of no known kind."""
  path = pathlib.PurePath(name)
  kind = path.suffix
  if kind in _COMPRESSIONS:
    kind = path.with_suffix('').suffix
    return kind if kind in ('.jsonl', '.csv', '.tsv') else None
  return kind if kind in READERS else None
