"""What readers of many files keep: the files, or parts, that were used last."""

from collections.abc import Callable, Iterable, Sequence
import functools
import threading
from typing import TypeVar

from influence_core import errors

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


def check_columns(
  path: str, columns: Sequence[str], there: Iterable[str]
) -> None:
  """Raises `errors.InputError` if a file lacks columns that are asked for."""
  names = list(there)
  if absent := sorted(set(columns) - set(names)):
    raise errors.InputError(
      f'{path} has no column {", ".join(absent)}; it has {", ".join(names)}'
    )
