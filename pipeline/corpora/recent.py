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

  What is mapped of a file that is cut off, or whose lengths and places become
  others, ends the process when it is read.
  """

  path: str
  state: tuple[int, int, int]

  @classmethod
  def of(cls, path: str) -> 'MappedFile':
    return cls(path, _state_of(path))

  def check_unchanged(self) -> None:
    """Raises `storage.DamagedFileError` if the file is another one by now."""
    try:
      is_same = _state_of(self.path) == self.state
    except FileNotFoundError:
      return  # What is mapped stays.
    if not is_same:
      raise storage.DamagedFileError(
        f'{self.path} has changed while it was read; leave it as it is '
        'meanwhile, and run the same command again'
      )


def _state_of(path: str) -> tuple[int, int, int]:
  found = os.stat(path)
  return found.st_size, found.st_mtime_ns, found.st_ino


def check_columns(
  path: str, columns: Sequence[str], there: Iterable[str]
) -> None:
  """Raises `errors.InputError` if a file lacks columns that are asked for."""
  names = list(there)
  if absent := sorted(set(columns) - set(names)):
    raise errors.InputError(
      f'{path} has no column {", ".join(absent)}; it has {", ".join(names)}'
    )
