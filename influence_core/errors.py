"""The one error type that is meant for the person who runs the program."""

from collections.abc import Sequence
from typing import Any, get_args


class InputError(ValueError):
  """Something the caller can fix: a flag, a file, a task, a dataset.

  The message is one line that names the value received, what was expected and
  the next step. Command lines print it without a traceback.
  """


def check_at_least_one(**numbers: int | None) -> None:
  """Checks what counts something, by the names that users know.

  Raises:
    InputError: Names the first number below 1; None is not looked at.
  """
  for name, value in numbers.items():
    if value is not None and value < 1:
      raise InputError(f'{name} is {value}, expected at least 1')


def check_choice(name: str, value: Any, literal: Any) -> None:
  """Checks a value that is one of several, by the name that users know.

  Raises:
    InputError: It is none of the values of `literal`, a `typing.Literal`.
  """
  expected = get_args(literal)
  if value not in expected:
    raise InputError(
      f'{name} is {value!r}, expected one of {", ".join(expected)}'
    )


def abridged(names: Sequence[str], limit: int = 12) -> str:
  """Names in a line; of many, the first and how many more there are."""
  shown = ', '.join(names[:limit])
  more = len(names) - limit
  return f'{shown} and {more} more' if more > 0 else shown


def first_line(told: object) -> str:
  """The first line of what an error says; empty where it says nothing."""
  try:
    return str(told).strip().partition('\n')[0]
  except Exception:  # Errors of a user's own may fail to say what they are.
    return ''
