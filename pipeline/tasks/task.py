"""The task: what a user brings. A model, its loss and its corpus.

A task is made by a function in the user's own module, named by import path:
`my_team.cifar:make_task`. Workers import it by that name, so nothing is ever
pickled, and nothing has to be registered.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import inspect
import os
import sys
import types as python_types
from typing import Any

from influence_core import errors, parameter_selection, types
from influence_core.curvature import products as curvature_products
from pipeline.corpora import tfds_corpus as corpus_lib
from pipeline.tasks import arguments as task_arguments
from pipeline.tasks import user_code


@dataclasses.dataclass(frozen=True)
class Task:
  """A model with its loss and training corpus.

  Attributes:
    name: for logs and reports.
    load_parameters: returns the pytree of trained parameters; see
      `checkpoints.load_arrays` for Orbax.
    per_example_loss: (params, [batch, ...] features) -> [batch] float losses.
      Pure, without dropout or other randomness, and without any exchange
      between examples.
    corpus: the training split.
    preprocess: a raw TFDS example (with its id under 'tfds_id') -> features, a
      pytree of numpy arrays whose shapes are the same for every example. Types
      of numbers are those of the first examples; others are converted where
      that loses nothing. An example of another form is left out as unusable.
    row_columns: a raw example -> scalars stored beside its projection, such as
      {'label': 3}: numbers, text (or UTF-8 bytes), dates and times, bool, None
      where a value is missing; None for no columns. Names and types are those
      of the first examples, see `row_columns`; a column that is None in all of
      them is one of text.
    loss_reduction: how the loss of an example reduces its parts, e.g. 'sum' or
      'mean' over tokens; 'none' where it has no parts. Part of what an index
      is checked against.
    parameter_paths: regular expressions of the parameters that influence is
      taken through; see `parameter_selection.select_parameters`.
    l2_weight: c, where training added c/2 * |theta|^2 to the mean loss.
    split_loss: the same loss as model outputs and a loss of outputs, for a
      basis of the Gauss-Newton matrix; None where that is not wanted.
    retrain: (ids of training examples, seed) -> parameters of the same model
      trained on those alone; for `influence evaluate`, None where that is not
      wanted. Called from several threads.
    version: change it to mark a change of model code or preprocessing that
      parameters and a few preprocessed examples do not show.
  """

  name: str
  load_parameters: Callable[[], types.Params]
  per_example_loss: types.PerExampleLoss
  corpus: corpus_lib.TfdsCorpus
  preprocess: Callable[[corpus_lib.RawExample], types.Features]
  row_columns: Callable[[corpus_lib.RawExample], Mapping[str, Any]] | None = (
    None
  )
  loss_reduction: str = 'none'
  parameter_paths: Sequence[str] = ('.*',)
  l2_weight: float = 0.0
  split_loss: curvature_products.SplitLoss | None = None
  retrain: Callable[[frozenset[str], int], types.Params] | None = None
  version: str = '1'

  def num_selected(self) -> int:
    """Number of selected parameters, from the checkpoint."""
    selected = parameter_selection.select_parameters(
      self.load_parameters(), self.parameter_paths
    )
    return parameter_selection.num_parameters(selected)


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

  def load(self) -> Task:
    """Imports the module and makes the task.

    Raises:
      errors.InputError: The path does not lead to a task function, the
        arguments do not fit it, or the user's code fails.
    """
    function = _find_function(self.import_path)
    with user_code.told(self.import_path):
      bound = task_arguments.convert(self.import_path, function, self.arguments)
      task = function(*bound.args, **bound.kwargs)
    if not isinstance(task, Task):
      raise errors.InputError(
        f'{self.import_path} returned {type(task).__name__}, expected a '
        'pipeline.tasks.task.Task'
      )
    if self.parameter_paths is None:
      return task
    return dataclasses.replace(task, parameter_paths=self.parameter_paths)


def _find_function(import_path: str) -> Callable[..., Task]:
  module_name, separator, function_name = import_path.partition(':')
  if not (module_name and separator and function_name):
    raise errors.InputError(
      f'task is {import_path!r}, expected module:function such as '
      'launch.example_tasks.mnist_cnn:make_task'
    )
  if os.getcwd() not in sys.path:  # A console script does not add it itself.
    sys.path.insert(0, os.getcwd())
  with user_code.told(f'importing {module_name!r} of task {import_path}'):
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


def _defined_functions(module: python_types.ModuleType) -> list[str]:
  return sorted(
    name
    for name, value in vars(module).items()
    if inspect.isfunction(value)
    and value.__module__ == module.__name__
    and not name.startswith('_')
  )
