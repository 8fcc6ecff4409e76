"""From raw examples to what a job can use: one form, and reasons where not.

The form is decided before any work starts, from the first examples that can be
used or from those kept with a basis. So all workers agree, and later runs with
the shards that they reuse.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
from typing import Any, NamedTuple

import jax
import numpy as np

from influence_core import errors, types, user_code
from influence_core.devices import memory as device_memory
from pipeline.corpora import corpus as corpus_lib
from pipeline.tasks import (
  feature_form,
  row_columns,
  sequence_lengths,
  task as task_lib,
)

# Column of what people know examples by.
EXAMPLE_ID = 'example_id'

# Examples preprocessed and run through the loss before any work starts.
NUM_CHECKED = 4
# Examples looked at to find so many that can be used.
_MAX_LOOKED_AT = 64

# What there is always memory for.
_NUM_SMALL_BYTES = 1 << 20

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
      converted = example._replace(
        features=self.features.convert(example.features),
        row=self.columns.convert(example.row),
      )
      self.padded_lengths(converted)
      return converted
    except feature_form.UnfitFeaturesError as error:
      raise UnusableExampleError(f'features: {error}') from error
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
  part: str = 'preprocess'
  function: Callable[..., Any] | None = task.preprocess
  row: dict[str, Any] = {}
  try:
    features = feature_form.prepared(task.preprocess(_copy(raw)))
    part, function = 'row_columns', task.row_columns
    if task.example_id is not None:  # Queries of one's own may have none.
      row = row_columns.plain_row({EXAMPLE_ID: raw.get(task.example_id)})
    if task.row_columns:
      row |= row_columns.plain_row(task.row_columns(dict(raw)))
  except (
    feature_form.UnfitFeaturesError,
    row_columns.UnfitColumnError,
  ) as error:
    raise UnusableExampleError(f'{part}: {error}') from error
  except user_code.ERRORS as error:
    raise UnusableExampleError(
      f'{part}: {user_code.described(error, function)}'
    ) from error
  return PreparedExample(example_id, raw, features, row)


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
    kind = feature_form.signature(example.features, task.sequences)
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


def check_first(
  task: task_lib.Task, form: ExampleForm, examples: Sequence[PreparedExample]
) -> None:
  """Refuses features that are too large, or not the same every time.

  Args:
    task: the task.
    form: of the examples.
    examples: a few of them, in that form.

  Raises:
    errors.InputError: Names their size, or the first example whose features
      differ when it is preprocessed again.
  """
  leaves = jax.tree.leaves([example.features for example in examples])
  num_bytes = sum(leaf.nbytes for leaf in leaves)
  if num_bytes > _NUM_SMALL_BYTES:
    device_memory.check_host_memory(
      3 * num_bytes,
      f'features of {len(examples)} examples, preprocessed twice and stacked,',
      'make them smaller in preprocess',
    )
  for example in examples:
    if not _repeats(task, form, example):
      raise errors.InputError(
        f'task {task.name}: {user_code.named("preprocess", task.preprocess)} '
        f'gives other features of {example.example_id} when it is called '
        'again, expected the same: use no random numbers in it, and no state '
        'of its own'
      )


def _repeats(
  task: task_lib.Task, form: ExampleForm, example: PreparedExample
) -> bool:
  try:
    again = form.convert(prepare(task, example.example_id, example.raw))
  except UnusableExampleError:
    return False
  leaves = jax.tree.leaves((example.features, again.features))
  half = len(leaves) // 2
  return all(
    np.array_equal(one, other, equal_nan=one.dtype.kind in 'fc')
    for one, other in zip(leaves[:half], leaves[half:], strict=True)
  )


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
