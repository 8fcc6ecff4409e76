"""Command lines of the program that the program itself makes and runs."""

from collections.abc import Iterable
import importlib
import re
from typing import Any

from launch.flags import parser as flags_lib
from launch.output import console as console_lib
from pipeline.tasks.reference import TaskReference


def module_of(command: str) -> Any:
  """The module whose `run` a command is."""
  return importlib.import_module(
    f'launch.commands.{re.sub("[- ]", "_", command)}'
  )


def run(console: console_lib.Console, *argv: str) -> dict[str, Any]:
  """Runs a command as if typed and gives its result.

  Args:
    console: that it prints to.
    argv: what is typed after `influence`.
  """
  flags, values = flags_lib.parse(argv)
  return module_of(flags.command).run(console, **values)


def task_flags(task: TaskReference) -> tuple[str, ...]:
  """Flags that name a task and its arguments."""
  arguments = (f'{name}={value}' for name, value in task.arguments.items())
  return ('--task', task.import_path, *repeated('--task_arg', arguments))


def repeated(flag: str, values: Iterable[str]) -> tuple[str, ...]:
  """A flag that may be repeated, with each value."""
  return tuple(x for value in values for x in (flag, value))
