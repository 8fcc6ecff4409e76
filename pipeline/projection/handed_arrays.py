"""Arrays from one process to another of this machine, through a file.

A pipe takes three copies and the interpreter's time in both processes; a file
in memory takes one, and is mapped by who receives it.
"""

from collections.abc import Sequence
import io
import mmap
import os
import tempfile
from typing import NamedTuple
import uuid

import numpy as np

# A file system in memory, where there is one.
_IN_MEMORY = '/dev/shm'
# What is as soon sent through a pipe.
_SMALL_BYTES = 1 << 20


class HandedArrays(NamedTuple):
  """Arrays in a file, which is there until they are taken.

  Attributes:
    path: of the file.
    kinds: shape and dtype of each, one behind the other.
  """

  path: str
  kinds: list[tuple[tuple[int, ...], np.dtype]]


def make_directory() -> tempfile.TemporaryDirectory:
  """Where processes of this machine put files, removed with the object."""
  is_there = os.access(_IN_MEMORY, os.W_OK)
  return tempfile.TemporaryDirectory(
    prefix='influence-', dir=_IN_MEMORY if is_there else None
  )


def hand_over(
  arrays: Sequence[np.ndarray], directory: str
) -> HandedArrays | list[np.ndarray]:
  """Puts arrays into a file; small ones, and without room, stay as they are."""
  if sum(array.nbytes for array in arrays) < _SMALL_BYTES:
    return list(arrays)
  path = os.path.join(directory, uuid.uuid4().hex)
  try:
    with open(path, 'xb', buffering=0) as file:
      for array in arrays:
        # The data of an array of any dtype, as bytes.
        _write(
          file, np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        )
  except OSError:  # Containers may have little of it.
    if os.path.exists(path):
      os.unlink(path)
    return list(arrays)
  return HandedArrays(path, [(x.shape, x.dtype) for x in arrays])


def _write(file: io.FileIO, left: memoryview) -> None:
  while left:
    left = left[file.write(left) :]


def take(handed: HandedArrays | list[np.ndarray]) -> list[np.ndarray]:
  """The arrays, which may be written to; the file is gone afterwards."""
  if not isinstance(handed, HandedArrays):
    return handed
  with open(handed.path, 'rb') as file:
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
  os.unlink(handed.path)
  arrays, start = [], 0
  for shape, dtype in handed.kinds:
    count = int(np.prod(shape))
    flat = np.frombuffer(mapped, dtype, count, start)
    arrays.append(flat.reshape(shape))
    start += flat.nbytes
  return arrays
