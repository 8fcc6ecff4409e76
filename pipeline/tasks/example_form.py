"""From raw examples to what a job can use: one form, and reasons where not.

The form is decided before any work starts, from the first examples that can be
used or from those kept with a basis. So all workers agree, and later runs with
the shards that they reuse.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np

from influence_core import errors, types, user_code
from pipeline.corpora import corpus as corpus_lib, raw_batch
from pipeline.tasks import (
  feature_form,
  row_columns,
  sequence_lengths,
  task as task_lib,
)

# Column of what people know examples by.
EXAMPLE_ID = 'example_id'

AnyExample = corpus_lib.RawExample | corpus_lib.UndecodableExample


class UnusableExampleError(ValueError):
  """An example that must be left out; says why."""


class PreparedExample(NamedTuple):
  """An example that the task's own code could read.

  Attributes:
    example_id: its id.
    raw: as it was read.
    features: pytree of numpy arrays.
    row: values of its row columns by name.
  """

  example_id: str
  raw: corpus_lib.RawExample
  features: types.Features
  row: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class ExampleForm:
  """What all examples of a job have in common.

  Attributes:
    features: their form.
    columns: their row columns.
    buckets: lengths that sequences are padded to; empty for those found.
  """

  features: feature_form.FeatureForm
  columns: row_columns.ColumnSchema
  buckets: tuple[int, ...] = ()

  @classmethod
  def of(
    cls, task: task_lib.Task, examples: Sequence[PreparedExample]
  ) -> 'ExampleForm':
    """That of some examples whose features have the same shapes.

    Raises:
      errors.InputError: Their columns would hide those of every index, or what
        the task names is not there.
    """
    sequence_lengths.check_buckets(task.buckets)
    if task.example_id is not None:
      _check_example_id(task.example_id, examples)
    return cls(
      feature_form.FeatureForm.of(
        [example.features for example in examples], task.sequences
      ),
      row_columns.ColumnSchema.of([example.row for example in examples]),
      tuple(task.buckets),
    )

  def convert(self, example: PreparedExample) -> PreparedExample:
    """The example in this form.

    Raises:
      UnusableExampleError: It would lose something.
    """
    try:
      features = self.features.convert(example.features)
      converted = example._replace(
        features=features, row=self.convert_row(example.row)
      )
      self.padded_lengths(converted)
      return converted
    except feature_form.UnfitFeaturesError as error:
      raise UnusableExampleError(f'features: {error}') from error

  def convert_row(self, row: dict[str, Any]) -> dict[str, Any]:
    """Values of row columns in this form.

    Raises:
      UnusableExampleError: One would lose something.
    """
    try:
      return self.columns.convert(row)
    except row_columns.UnfitColumnError as error:
      raise UnusableExampleError(f'row_columns: {error}') from error

  def padded_lengths(self, example: PreparedExample) -> tuple[int, ...]:
    """What the sequences of an example in this form are padded to.

    Raises:
      feature_form.UnfitFeaturesError: One is longer than all buckets.
    """
    if not self.features.sequences:
      return ()
    lengths = self.features.lengths(example.features)
    found = [sequence_lengths.bucket(x, self.buckets) for x in lengths]
    if None in found:
      raise feature_form.UnfitFeaturesError(
        f'a sequence has length {lengths[found.index(None)]}, the largest '
        f'bucket is {self.buckets[-1]}; add a larger one or crop in preprocess'
      )
    return tuple(x for x in found if x is not None)

  def stack(
    self, examples: Sequence[PreparedExample], lengths: Sequence[int]
  ) -> types.Features:
    """[num_examples, ...] of examples in this form, at least one.

    Args:
      examples: to stack.
      lengths: that sequences are padded to, see `longest`.
    """
    features = [self.features.pad(x.features, lengths) for x in examples]
    return jax.tree.map(lambda *leaves: np.stack(leaves), *features)

  def longest(self, examples: Sequence[PreparedExample]) -> tuple[int, ...]:
    """The buckets that hold all examples."""
    every = [self.padded_lengths(example) for example in examples]
    return tuple(map(max, zip(*every, strict=True)))

  def fits(self, example: PreparedExample) -> bool:
    try:
      self.convert(example)
    except UnusableExampleError:
      return False
    return True


def prepare(
  task: task_lib.Task, example_id: str, raw: AnyExample
) -> PreparedExample:
  """Features and row columns of an example, in whatever form they come.

  Raises:
    UnusableExampleError: It cannot be read, or the task's code fails on it.
  """
  if isinstance(raw, corpus_lib.UndecodableExample):
    raise UnusableExampleError(f'undecodable: {raw.reason}')
  features = _read(
    'preprocess', task.preprocess, feature_form.prepared, _copy(raw)
  )
  return PreparedExample(example_id, raw, features, row_of(task, raw))


def row_of(task: task_lib.Task, raw: corpus_lib.RawExample) -> dict[str, Any]:
  """Values of the row columns of an example by name.

  Raises:
    UnusableExampleError: The task's code fails on it.
  """
  row: dict[str, Any] = {}
  name = task.example_id
  if name is not None:  # Queries of one's own may have none.
    row = _read(
      'row_columns',
      lambda raw: {EXAMPLE_ID: raw.get(name)},
      row_columns.plain_row,
      raw,
    )
  if task.row_columns:
    row |= _read(
      'row_columns', task.row_columns, row_columns.plain_row, dict(raw)
    )
  return row


def prepare_together(
  task: task_lib.Task, form: ExampleForm, batch: raw_batch.RawBatch
) -> types.Features:
  """[num_examples, ...] features in this form, by `preprocess_batch`.

  Raises:
    UnusableExampleError: It fails, or some example has another form.
  """
  assert task.preprocess_batch is not None
  features = _read(
    'preprocess_batch',
    task.preprocess_batch,
    feature_form.prepared,
    raw_batch.RawBatch(
      len(batch), lambda: map(_copy, batch), lambda: batch.columns
    ),
  )
  try:
    return form.features.of_batch(len(batch)).convert(features)
  except feature_form.UnfitFeaturesError as error:
    raise UnusableExampleError(f'preprocess_batch: {error}') from error


def _read(
  part: str,
  function: Callable[[Any], Any],
  understand: Callable[[Any], Any],
  argument: Any,
) -> Any:
  """What a function of the task's gives, understood.

  Raises:
    UnusableExampleError: It fails, or gives what cannot be used.
  """
  try:
    return understand(function(argument))
  except (
    feature_form.UnfitFeaturesError,
    row_columns.UnfitColumnError,
  ) as error:
    raise UnusableExampleError(f'{part}: {error}') from error
  except user_code.ERRORS as error:
    raise UnusableExampleError(
      f'{part}: {user_code.described(error, function)}'
    ) from error


def _check_example_id(name: str, examples: Sequence[PreparedExample]) -> None:
  if not any(name in example.raw for example in examples):
    raise errors.InputError(
      f'example_id is {name!r}, expected a feature of the raw examples, which '
      f'are {", ".join(map(str, examples[0].raw))}'
    )


def _copy(value: Any) -> Any:
  """Of a raw example, which preprocess may change: it is used again."""
  match value:
    case np.ndarray():
      return value.copy()
    case dict():
      return {key: _copy(item) for key, item in value.items()}
    case list():
      return [_copy(item) for item in value]
  return value
