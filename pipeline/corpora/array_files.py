"""Rows of .npy and .npz files, which are mapped into memory.

An example is a row of every array. Remote files are copied to this machine
once; compressed arrays are unpacked there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import pathlib
import shutil
import struct
from typing import Any, Literal, NamedTuple
import zipfile
import zlib

import numpy as np

from influence_core import errors
from pipeline.corpora import file_names, recent
from pipeline.storage import array_bytes, files as storage, machine_cache

# Files that are mapped at a time.
_MAX_OPEN = 64
# Of the header before a file in an archive: where it tells its own length.
_LENGTHS_PLACE, _LENGTHS, _FIXED_BYTES = 26, struct.Struct('<HH'), 30
_DAMAGES = (
  ValueError,
  OSError,
  EOFError,
  NotImplementedError,
  struct.error,
  zlib.error,
  zipfile.BadZipFile,
)


class _Mapped(NamedTuple):
  """Arrays by column, and the files that they are in."""

  files: list[recent.MappedFile]
  arrays: dict[str, np.ndarray]


class _ArrayRows:
  """Takes rows out of arrays that `map_arrays` maps."""

  def __init__(self, map_arrays: Callable[[str], _Mapped]):
    self._mapped = recent.keep_last(map_arrays, _MAX_OPEN)

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    rows = np.asarray(positions, np.int64)
    try:
      taken = {name: array[rows] for name, array in self._arrays(path).items()}
    except IndexError as error:
      raise RuntimeError(f'{path} has no such row ({error})') from error
    return [
      dict(zip(taken, row, strict=True))
      for row in zip(*taken.values(), strict=True)
    ]

  def read_columns(
    self, path: str, start: int, stop: int
  ) -> dict[str, np.ndarray]:
    return {
      name: array[start:stop]
      for name, array in self._arrays(path).items()
      # Others change when they are stacked.
      if array.dtype.kind in 'biufc' and array.dtype.isnative
    }

  def _arrays(self, path: str) -> dict[str, np.ndarray]:
    mapped = self._mapped(path)
    for file in mapped.files:
      file.check_unchanged()
    return mapped.arrays


class NpyRows(_ArrayRows):
  """Rows of .npy files, one column each, that `file_names` names."""

  def __init__(self, columns: Sequence[str]):
    """Opens nothing yet; `columns` is what chose the files."""
    super().__init__(self._map)

  def num_rows(self, path: str) -> int:
    with storage.open_for_reading(path) as stream, _reading(path):
      return _num_rows(path, {path: array_bytes.read_header(stream).shape})

  def _map(self, path: str) -> _Mapped:
    local = machine_cache.local_file(path)
    with _reading(path):
      array = _map_array(local)
    name = file_names.column_of(path)
    return _Mapped([recent.MappedFile.of(local)], {name: array})


class NpzRows(_ArrayRows):
  """Rows of .npz files, whose arrays are the columns."""

  def __init__(self, columns: Sequence[str]):
    super().__init__(self._map)
    self._columns = columns

  def num_rows(self, path: str) -> int:
    """From the headers of the arrays."""
    with (
      storage.open_for_reading(path) as stream,
      _reading(path),
      zipfile.ZipFile(stream) as archive,
    ):
      shapes = {}
      for name, member in self._members(path, archive).items():
        with archive.open(member) as file:
          shapes[name] = array_bytes.read_header(file).shape
      return _num_rows(path, shapes)

  def _members(
    self, path: str, archive: zipfile.ZipFile
  ) -> dict[str, zipfile.ZipInfo]:
    """The arrays that are wanted, by name."""
    there = {
      info.filename.removesuffix(file_names.ARRAY_SUFFIX): info
      for info in archive.infolist()
    }
    recent.check_columns(path, self._columns, there)
    return {name: there[name] for name in self._columns or there}

  def _map(self, path: str) -> _Mapped:
    local = machine_cache.local_file(path)
    mapped = _Mapped([recent.MappedFile.of(local)], {})
    with _reading(path), zipfile.ZipFile(local) as archive:
      for name, member in self._members(path, archive).items():
        if member.compress_type == zipfile.ZIP_STORED:
          place = _start_of(local, member)
          mapped.arrays[name] = _map_array(local, place)
        else:
          plain = _unpack(path, archive, member)
          mapped.files.append(recent.MappedFile.of(plain))
          mapped.arrays[name] = _map_array(plain)
    return mapped


def _num_rows(path: str, shapes: Mapping[str, tuple[int, ...]]) -> int:
  lengths = {shape[:1] for shape in shapes.values()}
  if len(lengths) != 1 or lengths == {()}:
    raise storage.DamagedFileError(
      f'{path} has arrays of shapes {shapes}, expected one length; choose '
      'columns or write it again'
    )
  return lengths.pop()[0]


def _map_array(path: str, place: int = 0) -> np.ndarray:
  """The array that begins at a byte of a local file."""
  with open(path, 'rb') as file:
    file.seek(place)
    header = array_bytes.read_header(file)
    start = file.tell()
  if 0 in header.shape:
    return np.empty(header.shape, header.dtype)
  order: Literal['C', 'F'] = 'F' if header.is_fortran else 'C'
  # Without the class of maps, whose items are slow.
  return np.asarray(
    np.memmap(path, header.dtype, 'r', start, header.shape, order)
  )


def _start_of(path: str, member: zipfile.ZipInfo) -> int:
  """The first byte of a file that is stored in an archive as it is."""
  with open(path, 'rb') as file:
    file.seek(member.header_offset + _LENGTHS_PLACE)
    lengths = _LENGTHS.unpack(file.read(_LENGTHS.size))
  return member.header_offset + _FIXED_BYTES + sum(lengths)


def _unpack(
  path: str, archive: zipfile.ZipFile, member: zipfile.ZipInfo
) -> str:
  """A copy on this machine of a file that is compressed in an archive."""

  def write(target: pathlib.Path) -> None:
    with archive.open(member) as packed, open(target, 'wb') as file:
      shutil.copyfileobj(packed, file, 1 << 20)

  number = archive.infolist().index(member)
  return machine_cache.make_once(
    path, f'array-{number}', write, num_bytes=member.file_size
  )


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  try:
    yield
  except errors.InputError:
    raise
  except _DAMAGES as error:
    kind = path.rpartition('.')[2]
    raise storage.DamagedFileError(
      f'{path} is no .{kind} file of arrays '
      f'({errors.first_line(error)}); write it again'
    ) from error
