"""Free space of disks, asked for before anything is written."""

import os
import pathlib
import shutil
import tempfile

from influence_core import errors
from pipeline.storage import files as storage


def free_bytes(directory: str) -> int | None:
  """Free space where a local directory is or will be; None elsewhere."""
  if not storage.is_local(directory):
    return None
  place = pathlib.Path(directory)
  while not place.exists():
    place = place.parent
  return shutil.disk_usage(place).free


def check_room(path: str, num_bytes: int) -> None:
  """Refuses a file that `files.open_for_writing` has no disk for.

  Raises:
    errors.InputError: Its directory cannot be written, or is too full.
  """
  directory = tempfile.gettempdir()
  if storage.is_local(path):
    directory = os.path.dirname(storage.absolute(path))
    storage.check_writable(directory)
  free = free_bytes(directory)
  if free is not None and num_bytes > free:
    raise errors.InputError(
      f'{path} would take {num_bytes:,} bytes, and {free:,} are free in '
      f'{directory}; choose another path'
    )
