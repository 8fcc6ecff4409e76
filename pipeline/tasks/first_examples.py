"""The first examples of a corpus: tried before any work starts."""

from collections.abc import Iterator, Sequence
import itertools
from typing import Any

import jax
import numpy as np

from influence_core import errors, types, user_code
from influence_core.devices import memory as device_memory
from pipeline.corpora import corpus as corpus_lib, raw_batch
from pipeline.tasks import example_form, feature_form, task as task_lib

# Examples preprocessed and run through the loss.
NUM_CHECKED = 4
# Examples looked at to find so many that can be used.
_MAX_LOOKED_AT = 64

# What there is always memory for.
_NUM_SMALL_BYTES = 1 << 20


def first_usable(
  task: task_lib.Task, form: example_form.ExampleForm | None = None
) -> list[example_form.PreparedExample]:
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
  groups: dict[Any, list[example_form.PreparedExample]] = {}
  rejected: dict[str, str] = {}
  for example_id, raw in itertools.chain.from_iterable(steps(task.corpus)):
    try:
      example = example_form.prepare(task, example_id, raw)
      if form:
        form.convert(example)
    except example_form.UnusableExampleError as error:
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
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Sequence[example_form.PreparedExample],
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
  if task.preprocess_batch is not None:
    _check_together(task, form, examples)


def _check_together(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Sequence[example_form.PreparedExample],
) -> None:
  """Refuses a `preprocess_batch` that is not `preprocess` of each."""
  if task.sequences:
    raise errors.InputError(
      f'task {task.name} has preprocess_batch and sequences; sequences of any '
      'length are preprocessed one by one, leave preprocess_batch out'
    )
  try:
    together = example_form.prepare_together(
      task,
      form,
      raw_batch.RawBatch(len(examples), lambda: [x.raw for x in examples]),
    )
  except example_form.UnusableExampleError as error:
    raise errors.InputError(f'task {task.name}: {error}') from error
  if not _same_features(together, form.stack(examples, ())):
    raise errors.InputError(
      f'task {task.name}: preprocess_batch gives other features than '
      f'preprocess of the first {len(examples)} examples, expected the same '
      'numbers, stacked'
    )


def _repeats(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  example: example_form.PreparedExample,
) -> bool:
  try:
    again = form.convert(
      example_form.prepare(task, example.example_id, example.raw)
    )
  except example_form.UnusableExampleError:
    return False
  return _same_features(example.features, again.features)


def _same_features(one: types.Features, other: types.Features) -> bool:
  """Whether features in one form are the same numbers."""
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(
    np.array_equal(a, b, equal_nan=a.dtype.kind in 'fc') for a, b in pairs
  )


def num_looked_at(corpus: corpus_lib.Corpus) -> int:
  """Examples at the beginning of a corpus that are looked at."""
  return min(_MAX_LOOKED_AT, corpus.num_examples)


def steps(
  corpus: corpus_lib.Corpus,
) -> Iterator[Iterator[tuple[str, example_form.AnyExample]]]:
  """They, in steps: mostly the first few are all that is needed."""
  count = num_looked_at(corpus)
  for start in range(0, count, NUM_CHECKED):
    yield corpus.read_positions(range(start, min(start + NUM_CHECKED, count)))
