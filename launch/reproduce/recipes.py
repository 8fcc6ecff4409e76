"""What `influence reproduce` runs: command lines, as one would type them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from launch.running import command_line
from pipeline.tasks.reference import TaskReference

Argv = tuple[str, ...]
# What a step gave, by its name: argv, seconds, and the result of the command.
Results = Mapping[str, Mapping[str, Any]]


class Step(NamedTuple):
  """A command and the name that its result is kept by.

  Attributes:
    name: unique in a recipe.
    argv: command line after `influence`.
  """

  name: str
  argv: Argv


class Recipe(Protocol):
  """An evaluation from nothing to its tables."""

  @property
  def needs_data(self) -> bool:
    """Whether a TFDS directory must be given."""
    ...

  def steps(self, out: str, data_dir: str | None) -> list[Step]:
    """All that is run, in order; files go to `out`."""
    ...

  def tables(self, found: Results) -> list[str]:
    """Lines of Markdown."""
    ...


def task_flags(example: str, workdir: str) -> Argv:
  """Flags that name the task of a trained example."""
  return command_line.task_flags(
    TaskReference(
      f'launch.example_tasks.{example}:make_task', {'workdir': workdir}
    )
  )


def index_steps(
  name: str, argv: Argv, task: Argv, *, basis: str, index: str
) -> list[Step]:
  """A basis, and the index that is projected on it.

  Args:
    name: of both, after 'basis' and 'project'.
    argv: of the command that makes the basis, without task and place.
    task: flags that name the task.
    basis: where it is stored.
    index: where that is stored.
  """
  command, *flags = argv
  return [
    Step(f'basis {name}', (command, *task, '--out', basis, *flags)),
    Step(
      f'project {name}', ('project', *task, '--basis', basis, '--index', index)
    ),
  ]
