"""Rows of .npz files: arrays of one length, an example each row of all."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import io
from typing import Any
import zipfile

import numpy as np

from influence_core import errors
from pipeline.corpora import recent
from pipeline.storage import files as storage

# Files in memory at a time, so that a range that goes on in the next one reads
# each once.
_MAX_LOADED = 2


class Arrays:
  """Reads rows of files that are loaded whole."""

  def __init__(self, columns: Sequence[str]):
    self._columns = columns
    self._arrays = recent.keep_last(self._load, _MAX_LOADED)

  def num_rows(self, path: str) -> int:
    """From the headers of the arrays."""
    with (
      storage.open_for_reading(path) as stream,
      _reading(path),
      zipfile.ZipFile(stream) as archive,
    ):
      shapes = {name: _shape(archive, name) for name in archive.namelist()}
    lengths = {name: shape[:1] for name, shape in shapes.items()}
    if len({*lengths.values()}) != 1 or () in lengths.values():
      raise storage.DamagedFileError(
        f'{path} has arrays of shapes {shapes}, expected one length'
      )
    return next(iter(lengths.values()))[0]

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

  def _load(self, path: str) -> dict[str, np.ndarray]:
    with (
      _reading(path),
      np.load(
        io.BytesIO(storage.read_bytes(path)), allow_pickle=False
      ) as content,
    ):
      recent.check_columns(path, self._columns, content.files)
      names = self._columns or content.files
      return {name: content[name] for name in names}


def _shape(archive: zipfile.ZipFile, name: str) -> tuple[int, ...]:
  with archive.open(name) as file:
    version = np.lib.format.read_magic(file)
    read = {
      (1, 0): np.lib.format.read_array_header_1_0,
      (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in read:
      raise ValueError(f'{name} is of version {version}')
    return read[version](file)[0]


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  try:
    yield
  except errors.InputError:
    raise
  except (ValueError, OSError, zipfile.BadZipFile) as error:
    raise storage.DamagedFileError(
      f'{path} is no .npz file of arrays ({error}); write it again'
    ) from error
