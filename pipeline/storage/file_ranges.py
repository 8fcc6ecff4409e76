"""Many ranges of one file, in one go."""

from collections.abc import Iterable
from typing import BinaryIO

from fsspec.implementations import local

from pipeline.storage import files as storage


def read(path: str, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
  """Bytes [start, stop) of a file for each range, remote ones at once.

  Raises:
    storage.DamagedFileError: The file is missing.
  """
  starts, stops = [], []
  for start, stop in ranges:
    starts.append(start)
    stops.append(stop)
  filesystem, name = storage.filesystem_of(path)
  try:
    if isinstance(filesystem, local.LocalFileSystem):
      with open(name, 'rb') as file:
        return [_read_range(file, *x) for x in zip(starts, stops, strict=True)]
    with storage.store_errors(path):
      found = filesystem.cat_ranges([name] * len(starts), starts, stops)
      if failed := [x for x in found if isinstance(x, Exception)]:
        raise failed[0]
      return found
  except FileNotFoundError as error:
    raise storage.DamagedFileError(f'{path} is missing') from error


def _read_range(file: BinaryIO, start: int, stop: int) -> bytes:
  file.seek(start)
  return file.read(stop - start)
