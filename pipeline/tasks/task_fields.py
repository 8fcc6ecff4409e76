"""What a task function returned, checked before anything of it is used."""

from collections.abc import Callable, Sequence
import dataclasses
import math
import numbers
from typing import Any

from influence_core import errors
from influence_core.curvature import products as curvature_products
from pipeline.corpora import corpus as corpus_lib
from pipeline.tasks import task as task_lib


def checked(import_path: str, task: Any) -> task_lib.Task:
  """The task, as a plain `Task`.

  Args:
    import_path: of the function that returned it, for errors.
    task: what it returned: a `Task`, or an object of a subclass whose methods
      may stand for the fields.

  Raises:
    errors.InputError: It is no task, or names a field of another type.
  """
  if not isinstance(task, task_lib.Task):
    raise errors.InputError(
      f'{import_path} returned {type(task).__name__}, expected a pipeline.Task'
    )
  values: dict[str, Any] = {
    field.name: getattr(task, field.name, None)
    for field in dataclasses.fields(task_lib.Task)
  }
  for name, (fits, expected) in _EXPECTED.items():
    if not fits(value := values[name]):
      raise errors.InputError(
        f'{import_path} returned a Task whose {name} is {_shown(value)}, '
        f'expected {expected}'
      )
  weight = float(values.pop('l2_weight'))
  return task_lib.Task(l2_weight=weight, **values)


def _shown(value: Any, limit: int = 60) -> str:
  if isinstance(value, type):
    return f'the class {value.__name__}'
  text = repr(value)
  if len(text) > limit or text.startswith('<'):
    return f'a {type(value).__name__}'
  return text


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
  return lambda value: value is None or fits(value)


def _is_text(value: Any) -> bool:
  return isinstance(value, str)


def _are_texts(value: Any) -> bool:
  return (
    isinstance(value, Sequence)
    and not isinstance(value, str)
    and all(map(_is_text, value))
  )


def _is_weight(value: Any) -> bool:
  return isinstance(value, numbers.Real) and math.isfinite(value)


def _is_split_loss(value: Any) -> bool:
  return (
    isinstance(value, curvature_products.SplitLoss)
    and callable(value.outputs)
    and callable(value.output_loss)
  )


# What a field must be, and how that is said.
_EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
  'name': (_is_text, 'text'),
  'load_parameters': (callable, 'a function without arguments'),
  'per_example_loss': (callable, 'a function of (params, features)'),
  'corpus': (
    lambda value: isinstance(value, corpus_lib.Corpus),
    "a corpus such as TfdsCorpus('mnist', 'train', data_dir)",
  ),
  'preprocess': (callable, 'a function of a raw example'),
  'sequences': (_are_texts, "a sequence of paths such as ('tokens',)"),
  'buckets': (
    lambda value: isinstance(value, Sequence) and not isinstance(value, str),
    'a sequence of lengths such as (64, 128)',
  ),
  'example_id': (_or_none(_is_text), 'the name of a feature, or None'),
  'row_columns': (_or_none(callable), 'a function of a raw example, or None'),
  'loss_reduction': (_is_text, "text such as 'mean'"),
  'parameter_paths': (
    _are_texts,
    "a sequence of regular expressions such as ('kernel',)",
  ),
  'l2_weight': (_is_weight, 'a number'),
  'split_loss': (_or_none(_is_split_loss), 'a SplitLoss of two functions'),
  'measurement': (
    _or_none(callable),
    'a function of (params, features), or None',
  ),
  'predict': (_or_none(callable), 'a function of (params, features), or None'),
  'retrain': (_or_none(callable), 'a function of (ids, seed), or None'),
  'token_losses': (
    _or_none(callable),
    'a function of (params, features), or None',
  ),
  'token_texts': (_or_none(callable), 'a function of a raw example, or None'),
  'show': (_or_none(callable), 'a function of a raw example, or None'),
  'version': (_is_text, "text such as '2'"),
}
