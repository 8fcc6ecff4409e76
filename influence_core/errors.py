"""The one error type that is meant for the person who runs the program."""


class InputError(ValueError):
  """Something the caller can fix: a flag, a file, a task, a dataset.

  The message is one line that names the value received, what was expected and
  the next step. Command lines print it without a traceback.
  """
