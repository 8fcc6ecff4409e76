"""Errors as one line, also those that Beam reports as text from far away."""

from typing import NamedTuple

from influence_core import errors


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


def last_line(error: BaseException) -> str:
  """What an error of another library says, without its traceback."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  return lines[-1].strip() if lines else type(error).__name__
