"""Errors of the user's own code in one line, with the place in their files."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import inspect
import pathlib
import sys
import sysconfig
import traceback
from typing import Any

from influence_core import errors

# What the user's code may raise: anything. A script that is imported as a
# module may also end the process, which would look like success.
ERRORS = (Exception, SystemExit)

# Frames of these directories are not the user's.
_LIBRARIES = tuple(
  {sysconfig.get_path(name) for name in ('stdlib', 'purelib', 'platlib')}
)
_OUR_LAYERS = ('influence_core', 'pipeline')
# Longest part of a message that is shown: some print whole arrays.
_MAX_LENGTH = 400
_TRACEBACK = 'Traceback (most recent call last):'


@contextlib.contextmanager
def user_errors(
  what: str, function: Callable[..., Any] | None = None
) -> Iterator[None]:
  """Whatever is raised inside, in one line.

  Args:
    what: was tried, at the beginning of the line.
    function: that is called, for where the error itself has no place.

  Raises:
    errors.InputError: Something was raised; those that are meant for the user
      already are left as they are.
  """
  try:
    yield
  except errors.InputError:
    raise
  except ERRORS as error:
    raise errors.InputError(
      f'{what} failed ({described(error, function)}); correct it there, or see '
      'the whole traceback with --verbose'
    ) from error


def described(
  error: BaseException, function: Callable[..., Any] | None = None
) -> str:
  """Type and message of an error, with file and line if they are known.

  Args:
    error: what was raised.
    function: of the user; where it begins is the place of an error that has
      none, such as one of its arguments.
  """
  line = message_line(error)
  text = f'{type(error).__name__}: {line}' if line else type(error).__name__
  place = _place(error) or (function and _beginning(function))
  return f'{text}, {place}' if place else text


def message_line(error: BaseException) -> str:
  """The line of a message that says most."""
  line = errors.first_line(
    error.msg if isinstance(error, SyntaxError) else error
  )
  if line.endswith(_TRACEBACK):  # JAX tells so what a host callback raised.
    line = str(error).strip().rpartition('\n')[2].strip()
  return line if len(line) <= _MAX_LENGTH else f'{line[:_MAX_LENGTH]}…'


def named(name: str, function: Callable[..., Any]) -> str:
  """The name of a function, with file and line where it begins if known."""
  place = _beginning(function)
  return f'{name} of {place}' if place else name


def _beginning(function: Callable[..., Any]) -> str | None:
  inner = inspect.unwrap(function)
  while isinstance(inner, functools.partial):
    inner = inspect.unwrap(inner.func)
  code = getattr(inner, '__code__', None)
  if code is None:  # A callable object.
    code = getattr(type(inner).__call__, '__code__', None)
  if code is None or _is_library(code.co_filename):
    return None
  return f'{code.co_filename}:{code.co_firstlineno}'


def _place(error: BaseException) -> str | None:
  """File and line of the innermost frame that is the user's.

  Where JAX fails in a transformation, the place is in the error's cause: the
  stack of what it transformed.
  """
  if isinstance(error, SyntaxError) and error.filename:
    return f'{error.filename}:{error.lineno}'
  link: BaseException | None = error
  while link is not None:
    for frame in reversed(traceback.extract_tb(link.__traceback__)):
      if not _is_library(frame.filename):
        return f'{frame.filename}:{frame.lineno}'
    link = link.__cause__
  return None


@functools.lru_cache(4096)
def _is_library(filename: str) -> bool:
  if filename.startswith('<'):  # Such as <frozen importlib._bootstrap>.
    return True
  ours = [
    pathlib.Path(path).parent
    for name in _OUR_LAYERS
    if (path := getattr(sys.modules.get(name), '__file__', None))
  ]
  return filename.startswith(_LIBRARIES) or any(
    pathlib.Path(filename).is_relative_to(directory) for directory in ours
  )
