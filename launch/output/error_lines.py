"""Errors as one line, also those that Beam reports as text from far away."""

from collections.abc import Iterator
import contextlib
from typing import NamedTuple

import grpc

from influence_core import errors, user_code

# By its name, since JAX takes long to import.
_DEVICE_ERROR = 'JaxRuntimeError'


class ErrorLine(NamedTuple):
  """An error to show.

  Attributes:
    text: the line.
    kind: name of its class.
  """

  text: str
  kind: str


def expected_error(error: BaseException) -> ErrorLine | None:
  """The one line to show for an error, None if it is a defect of ours.

  Beam reports what a worker raised as text with a traceback in it; the line
  of the error itself stands last there.
  """
  if isinstance(error, errors.InputError):
    return ErrorLine(str(error), type(error).__name__)
  if isinstance(error, MemoryError):
    what = f'memory does not suffice ({errors.first_line(error)})'
    return ErrorLine(f'{what}; --verbose shows for what', 'MemoryError')
  if type(error).__name__ == _DEVICE_ERROR:
    what = f'a device program failed ({user_code.message_line(error)})'
    return ErrorLine(f'{what}; --verbose shows where', _DEVICE_ERROR)
  told: list[type[Exception]] = [
    *errors.InputError.__subclasses__(),
    errors.InputError,
    OSError,
  ]
  for line in reversed(str(error).splitlines()):
    for error_type in told:
      marker = f'{error_type.__name__}: '
      if marker in line:
        text = line.split(marker, 1)[1].split(' [while running', 1)[0]
        return ErrorLine(text, error_type.__name__)
  return None


@contextlib.contextmanager
def server_errors() -> Iterator[None]:
  """Servers of Beam's engines that do not answer, in one line.

  Raises:
    errors.InputError: One does not.
  """
  try:
    yield
  except (grpc.RpcError, grpc.FutureTimeoutError) as error:
    raise errors.InputError(
      f'the engine does not answer ({last_line(error)}); is its server running '
      'and its address right?'
    ) from error


@contextlib.contextmanager
def engine_errors() -> Iterator[None]:
  """Failures of a Beam engine in one line.

  Raises:
    errors.InputError: It failed, or does not answer.
  """
  try:
    with server_errors():
      yield
  except RuntimeError as error:
    if expected_error(error):
      raise
    raise errors.InputError(
      f'the engine failed ({last_line(error)}); run the same command again'
    ) from error


def last_line(error: BaseException) -> str:
  """What an error of another library says, without its traceback."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  return lines[-1].strip() if lines else type(error).__name__
