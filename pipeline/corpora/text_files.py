"""Rows of texts, a line each: JSON Lines and CSV, also compressed."""

from collections.abc import Mapping, Sequence
import csv
import functools
import io
import json
import pathlib
from typing import Any

import pyarrow as pa

from pipeline.corpora import extents
from pipeline.storage import files as storage, machine_cache

# Texts of any length in a cell; the module's own limit is for all its users.
csv.field_size_limit(1 << 31)

# By the end of the name; the kind of text stands before it.
COMPRESSIONS = {'.gz': 'gzip', '.zst': 'zstd'}


class JsonLines:
  """Objects of JSON, one on each line."""

  def __init__(self, columns: Sequence[str]):
    self._columns = columns
    self._extents = extents.Extents('lines', extents.lines)
    self._plain = functools.cache(_plain)

  def num_rows(self, path: str) -> int:
    return len(self._extents.find(self._plain(path)))

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    rows = []
    for line in self._extents.read(self._plain(path), positions):
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
    self._plain = functools.cache(_plain)

  def num_rows(self, path: str) -> int:
    num_lines = len(self._extents.find(self._plain(path)))
    if not num_lines:
      raise storage.DamagedFileError(
        f'{path} is empty, expected a line with the names of columns; write it '
        'again'
      )
    return num_lines - 1

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    plain = self._plain(path)
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
      rows = list(csv.reader(io.StringIO(text), delimiter=self._delimiter))
    except (ValueError, csv.Error) as error:
      raise RuntimeError(f'a row of {path} cannot be read ({error})') from error
    if len(rows) != 1:
      raise RuntimeError(f'a row of {path} is {len(rows)} lines, expected one')
    return rows[0]


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
  compression = COMPRESSIONS.get(pathlib.PurePath(path).suffix)
  if compression is None:
    return path
  return machine_cache.make_once(
    path, 'plain', lambda target: _decompress(path, compression, target)
  )


def _decompress(path: str, compression: str, target: pathlib.Path) -> None:
  with (
    storage.open_for_reading(path) as stream,
    open(target, 'wb') as file,
    pa.CompressedInputStream(stream, compression) as content,
  ):
    try:
      if not stream.read(1):
        raise OSError('it is empty')
      stream.seek(0)
      while piece := content.read(1 << 22):
        file.write(piece)
    except OSError as error:
      raise storage.DamagedFileError(
        f'{path} cannot be decompressed ({error}); write it again'
      ) from error
