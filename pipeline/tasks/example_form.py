"""From raw examples to what a job can use: one form, and reasons where not.

The form is decided before any work starts, from the first examples that can be
used or from those kept with a basis. So all workers agree, and later runs with
the shards that they reuse.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from influence_core import errors, types
from pipeline.corpora import corpus as corpus_lib
from pipeline.tasks import feature_form, row_columns, task as task_lib

# Examples preprocessed and run through the loss before any work starts.
NUM_CHECKED = 4
# Examples looked at to find so many that can be used.
_MAX_LOOKED_AT = 64

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
  """What all examples of a job have in common."""

  features: feature_form.FeatureForm
  columns: row_columns.ColumnSchema

  @classmethod
  def of(cls, examples: Sequence[PreparedExample]) -> 'ExampleForm':
    """That of some examples whose features have the same shapes.

    Raises:
      errors.InputError: Their columns would hide those of every index.
    """
    return cls(
      feature_form.FeatureForm.of([example.features for example in examples]),
      row_columns.ColumnSchema.of([example.row for example in examples]),
    )

  def convert(self, example: PreparedExample) -> PreparedExample:
    """The example in this form.

    Raises:
      UnusableExampleError: It would lose something.
    """
    try:
      return example._replace(
        features=self.features.convert(example.features),
        row=self.columns.convert(example.row),
      )
    except feature_form.UnfitFeaturesError as error:
      raise UnusableExampleError(f'features: {error}') from error
    except row_columns.UnfitColumnError as error:
      raise UnusableExampleError(f'row_columns: {error}') from error

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
  part = 'preprocess'
  row = {}
  try:
    features = feature_form.prepared(task.preprocess(raw))
    if task.row_columns:
      part = 'row_columns'
      row = row_columns.plain_row(task.row_columns(raw))
  except (
    feature_form.UnfitFeaturesError,
    row_columns.UnfitColumnError,
  ) as error:
    raise UnusableExampleError(f'{part}: {error}') from error
  except Exception as error:  # The user's code may raise anything.
    raise UnusableExampleError(
      f'{part}: {type(error).__name__}: {errors.first_line(error)}'
    ) from error
  return PreparedExample(example_id, raw, features, row)


def first_usable(
  task: task_lib.Task, form: ExampleForm | None = None
) -> list[PreparedExample]:
  """The first examples of the corpus that can be used together.

  Where shapes differ, those of the shape that most of them have.

  Args:
    task: the task.
    form: that they must fit; None for any.

  Returns:
    `NUM_CHECKED` of them, or fewer where no more are found at its beginning.

  Raises:
    errors.InputError: None can be used; names the first with the reason.
  """
  groups: dict[Any, list[PreparedExample]] = {}
  rejected: dict[str, str] = {}
  for example_id, raw in itertools.chain.from_iterable(steps(task.corpus)):
    try:
      example = prepare(task, example_id, raw)
      if form:
        form.convert(example)
    except UnusableExampleError as error:
      rejected[example_id] = str(error)
      continue
    kind = feature_form.signature(example.features)
    group = groups.setdefault(kind, [])
    group.append(example)
    if len(group) == NUM_CHECKED:
      break
  if not groups:
    example_id, reason = next(iter(rejected.items()))
    raise errors.InputError(
      f'task {task.name}: none of the first {len(rejected)} examples can be '
      f'used; the first is {example_id} ({reason}); correct preprocess, '
      'row_columns or the dataset'
    )
  return max(groups.values(), key=len)


def stack_features(examples: Sequence[PreparedExample]) -> types.Features:
  """[num_examples, ...] of examples in one form, at least one."""
  features = [example.features for example in examples]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *features)


def num_looked_at(corpus: corpus_lib.Corpus) -> int:
  """Examples at the beginning of a corpus that are looked at."""
  return min(_MAX_LOOKED_AT, corpus.num_examples)


def steps(
  corpus: corpus_lib.Corpus,
) -> Iterator[Iterator[tuple[str, AnyExample]]]:
  """They, in steps: mostly the first few are all that is needed."""
  count = num_looked_at(corpus)
  for start in range(0, count, NUM_CHECKED):
    yield corpus.read_positions(range(start, min(start + NUM_CHECKED, count)))
