"""What readers of many files keep: the files, or parts, that were used last."""

from collections.abc import Callable, Iterable, Sequence
import functools
import os
import threading
from typing import NamedTuple, TypeVar

from influence_core import errors
from pipeline.storage import files as storage

Value = TypeVar('Value')


def keep_last(make: Callable[..., Value], most: int) -> Callable[..., Value]:
  """The function with its last values kept; one thread makes them at a time.

  A value that is given up ends when nobody uses it any more.

  Args:
    make: of hashable arguments.
    most: values to keep, those that were asked for last.
  """
  kept = functools.lru_cache(most)(make)
  lock = threading.Lock()

  def get(*key):
    with lock:
      return kept(*key)

  return get


class MappedFile(NamedTuple):
  """A file of this machine whose bytes are read where they are used.

  What is mapped past the end of a file ends the process when it is read.
  """

  path: str
  num_bytes: int

  @classmethod
  def of(cls, path: str) -> 'MappedFile':
    return cls(path, os.stat(path).st_size)

  def check_whole(self) -> None:
    """Raises `storage.DamagedFileError` if the file was cut off meanwhile."""
    try:
      num_bytes = os.stat(self.path).st_size
    except FileNotFoundError:
      return  # What is mapped stays.
    if num_bytes < self.num_bytes:
      raise storage.DamagedFileError(
        f'{self.path} had {self.num_bytes:,} bytes and has {num_bytes:,} now; '
        'leave it as it is while it is read, and run the same command again'
      )


def check_columns(
  path: str, columns: Sequence[str], there: Iterable[str]
) -> None:
  """Raises `errors.InputError` if a file lacks columns that are asked for."""
  names = list(there)
  if absent := sorted(set(columns) - set(names)):
    raise errors.InputError(
      f'{path} has no column {", ".join(absent)}; it has {", ".join(names)}'
    )
