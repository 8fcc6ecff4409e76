"""How a task is made anywhere: its import path and arguments.

It takes no time to import; the task does.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import inspect
import os
import pathlib
import sys
import types as python_types
from typing import TYPE_CHECKING, Any

from influence_core import errors, user_code
from pipeline.tasks import arguments as task_arguments

if TYPE_CHECKING:
  from pipeline.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class TaskReference:
  """How to make a task anywhere: an import path and string arguments.

  Attributes:
    import_path: 'package.module:function'.
    arguments: keyword arguments of the function, as strings. They are
      converted to the annotated types: str, int, float, bool, Literal, and
      unions of them such as `int | None`, of which text fits last and 'none'
      is None. Anything else, and what has no annotation or falls under
      `**more`, stays text.
    parameter_paths: instead of those of the task; None for the task's own.
  """

  import_path: str
  arguments: Mapping[str, str] = dataclasses.field(default_factory=dict)
  parameter_paths: tuple[str, ...] | None = None

  def to_json(self) -> dict[str, Any]:
    return {
      'import_path': self.import_path,
      'arguments': dict(self.arguments),
    }

  def selecting(self, paths: Sequence[str] | None) -> 'TaskReference':
    """The same task with other parameters selected; None for its own."""
    return dataclasses.replace(
      self, parameter_paths=None if paths is None else tuple(paths)
    )

  def check_named_by(self, file: str) -> None:
    """Refuses a function that a file names unless it is one that makes tasks.

    Else whoever writes an index could have any function of this machine called
    with any arguments. What makes tasks is a function of a module that has
    `Task` among its names, and returns one where it says what it returns.

    Args:
      file: that names it, for errors.

    Raises:
      errors.InputError: It is another function, or cannot be imported.
    """
    if not _makes_tasks(_find_function(self.import_path)):
      raise errors.InputError(
        f'{file} names the task {self.import_path}, which is no function that '
        'makes tasks, as far as can be seen without calling it; if you trust '
        'it, give --task yourself, or annotate the function with -> Task'
      )

  def load(self) -> 'Task':
    """Imports the module and makes the task.

    Raises:
      errors.InputError: The path does not lead to a task function, the
        arguments do not fit it, or the user's code fails.
    """
    from pipeline.tasks import task_fields  # It takes time to import.

    function = _find_function(self.import_path)
    with user_code.user_errors(self.import_path, function):
      bound = task_arguments.convert(self.import_path, function, self.arguments)
      task = function(*bound.args, **bound.kwargs)
    task = task_fields.checked(self.import_path, task)
    if self.parameter_paths is None:
      return task
    return dataclasses.replace(task, parameter_paths=self.parameter_paths)


def _find_function(import_path: str) -> 'Callable[..., Task]':
  module_name, separator, function_name = import_path.partition(':')
  if not (module_name and separator and function_name):
    raise errors.InputError(
      f'task is {import_path!r}, expected module:function such as '
      'launch.example_tasks.mnist_cnn:make_task'
    )
  if module_name.endswith('.py') or '/' in module_name:
    path = pathlib.PurePath(module_name).with_suffix('')
    dotted = path.name if path.is_absolute() else '.'.join(path.parts)
    raise errors.InputError(
      f'task is {import_path!r}, which names a file, expected its module; run '
      f'from the directory that holds it and name {dotted}:{function_name}'
    )
  if os.getcwd() not in sys.path:  # A console script does not add it itself.
    sys.path.insert(0, os.getcwd())
  with user_code.user_errors(
    f'importing {module_name!r} of task {import_path}'
  ):
    try:
      module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
      if not f'{module_name}.'.startswith(f'{error.name}.'):
        raise  # Something that it imports.
      raise errors.InputError(
        f'cannot import {module_name!r} of task {import_path} ({error}); run '
        'from the directory that holds it or install its package'
      ) from error
  function = getattr(module, function_name, None)
  if not callable(function):
    raise errors.InputError(
      f'module {module_name} has no function {function_name!r}; it defines '
      f'{", ".join(_defined_functions(module)) or "no function"}'
    )
  return function


def _makes_tasks(function: 'Callable[..., Any]') -> bool:
  from pipeline.tasks import task  # It takes time to import.

  if not inspect.isfunction(function):
    return False
  if 'return' in function.__annotations__:
    returned = function.__annotations__['return']
    return returned is task.Task or str(returned).endswith('Task')
  known = (task.Task, task, sys.modules['pipeline'])
  return any(x is y for x in function.__globals__.values() for y in known)


def _defined_functions(module: python_types.ModuleType) -> list[str]:
  return sorted(
    name
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and value.__module__ == module.__name__
    and not name.startswith('_')
  )
