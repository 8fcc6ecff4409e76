"""Errors as one line, also those that Beam reports as text from far away."""

from influence_core import errors


def expected_error(error: BaseException) -> str | None:
  """The one line to show for an error, None if it is a defect of ours.

  Beam reports what a worker raised as text with a traceback in it; the line
  of the error itself stands last there.
  """
  if isinstance(error, errors.InputError):
    return str(error)
  told: list[type[Exception]] = [
    errors.InputError,
    *errors.InputError.__subclasses__(),
    OSError,
  ]
  markers = [f'{error_type.__name__}: ' for error_type in told]
  for line in reversed(str(error).splitlines()):
    for marker in markers:
      if marker in line:
        return line.split(marker, 1)[1].split(' [while running', 1)[0]
  return None


def last_line(error: BaseException) -> str:
  """What an error of another library says, without its traceback."""
  lines = [line for line in str(error).splitlines() if line.strip()]
  return lines[-1].strip() if lines else type(error).__name__
