"""Errors of the user's own code in one line, with the place in their files."""

from collections.abc import Iterator
import contextlib
import pathlib
import sys
import sysconfig
import traceback

from influence_core import errors

# Frames of these directories are not the user's.
_LIBRARIES = tuple(
  {sysconfig.get_path(name) for name in ('stdlib', 'purelib', 'platlib')}
)
_OUR_LAYERS = ('influence_core', 'pipeline')


@contextlib.contextmanager
def user_errors(what: str) -> Iterator[None]:
  """Whatever is raised inside, in one line.

  Args:
    what: was tried, at the beginning of the line.

  Raises:
    errors.InputError: Something was raised; those that are meant for the user
      already are left as they are.
  """
  try:
    yield
  except errors.InputError:
    raise
  except Exception as error:
    raise errors.InputError(
      f'{what} failed ({described(error)}); correct it there, or see the whole '
      'traceback with --verbose'
    ) from error


def described(error: BaseException) -> str:
  """Type and message of an error, with file and line if they are known."""
  message = str(error.msg if isinstance(error, SyntaxError) else error)
  first = message.strip().partition('\n')[0]
  text = f'{type(error).__name__}: {first}' if first else type(error).__name__
  place = _place(error)
  return f'{text}, {place}' if place else text


def _place(error: BaseException) -> str | None:
  """File and line of the innermost frame that is the user's."""
  if isinstance(error, SyntaxError) and error.filename:
    return f'{error.filename}:{error.lineno}'
  for frame in reversed(traceback.extract_tb(error.__traceback__)):
    if not _is_library(frame.filename):
      return f'{frame.filename}:{frame.lineno}'
  return None


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
