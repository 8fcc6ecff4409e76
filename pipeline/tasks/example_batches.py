"""Preprocessed examples in batches, with those that could not be used."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import contextlib
import functools
import itertools
import types as python_types
from typing import Any, NamedTuple

import jax
import numpy as np
import pyarrow as pa

from influence_core import types
from pipeline.corpora import corpus as corpus_lib, raw_batch
from pipeline.index import format as index_format
from pipeline.storage import fingerprints
from pipeline.tasks import example_form, task as task_lib

# Examples in the task's form, and reasons of the others by id.
Prepared = tuple[list[example_form.PreparedExample], dict[str, str]]

_NONE: Mapping[str, str] = python_types.MappingProxyType({})


class ExampleBatch(NamedTuple):
  """Preprocessed examples, and those that could not be used.

  Attributes:
    ids: of the usable examples.
    features: pytree of [num_examples, ...] arrays, None if none is usable.
    columns: row columns of the usable examples by name.
    rejected: reason by id.
  """

  ids: list[str]
  features: types.Features
  columns: dict[str, pa.Array]
  rejected: dict[str, str]


def prepare(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Iterable[tuple[str, example_form.AnyExample]],
) -> Prepared:
  """Examples in the task's form, and reasons of the others by id."""
  usable: list[example_form.PreparedExample] = []
  rejected = {}
  for example_id, raw in examples:
    try:
      example = example_form.prepare(task, example_id, raw)
      usable.append(form.convert(example))
    except example_form.UnusableExampleError as error:
      rejected[example_id] = str(error)
  return usable, rejected


def stack(
  form: example_form.ExampleForm,
  usable: Sequence[example_form.PreparedExample],
  rejected: Mapping[str, str] = _NONE,
) -> ExampleBatch:
  """A batch of examples in the task's form.

  Sequences are padded to the bucket of the longest.
  """
  return ExampleBatch(
    [example.example_id for example in usable],
    form.stack(usable, form.longest(usable)) if usable else None,
    form.columns.arrays([example.row for example in usable]),
    dict(rejected),
  )


def read(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Sequence[tuple[str, example_form.AnyExample]],
) -> ExampleBatch:
  """A batch of examples in the task's form, those that can be used.

  By `preprocess_batch` where the task has it and no example is in its way.
  """
  ids = [example_id for example_id, _ in examples]
  return _read(task, form, ids, lambda: examples)


def read_range(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  part: index_format.ExampleRange,
  batch_size: int,
) -> Iterator[ExampleBatch]:
  """Batches of a range of a file, see `LoadedTask.preprocess_by_length`.

  By columns where the corpus has them and `preprocess_batch` asks for them.
  """
  corpus = task.corpus
  if task.preprocess_batch is None:
    examples = corpus.read_range(part.source_shard, part.start, part.stop)
    yield from by_length(task, form, examples, batch_size)
    return
  for start in range(part.start, part.stop, batch_size):
    stop = min(start + batch_size, part.stop)
    some = corpus_lib.SourceShard(part.source_shard, start, stop)
    yield _read(
      task,
      form,
      [corpus_lib.id_of(some.name, record) for record in range(start, stop)],
      functools.partial(corpus.read_range, some.name, start, stop),
      functools.partial(corpus.read_columns, some),
    )


def _read(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  ids: list[str],
  read_rows: Callable[[], Iterable[tuple[str, example_form.AnyExample]]],
  read_columns: Callable[[], Mapping[str, np.ndarray]] = dict,
) -> ExampleBatch:
  if task.preprocess_batch is not None and ids:
    batch = raw_batch.RawBatch(
      len(ids), lambda: _readable(read_rows()), read_columns
    )
    with contextlib.suppress(example_form.UnusableExampleError):
      return _read_together(task, form, ids, batch)
  return stack(form, *prepare(task, form, read_rows()))


def _read_together(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  ids: list[str],
  batch: raw_batch.RawBatch,
) -> ExampleBatch:
  features = example_form.prepare_together(task, form, batch)
  rows: list[dict[str, Any]] = [{}] * len(ids)
  if form.columns.types:
    rows = [form.convert_row(example_form.row_of(task, raw)) for raw in batch]
  return ExampleBatch(ids, features, form.columns.arrays(rows), {})


def _readable(
  examples: Iterable[tuple[str, example_form.AnyExample]],
) -> Iterator[corpus_lib.RawExample]:
  for _, raw in examples:
    if isinstance(raw, corpus_lib.UndecodableExample):
      raise example_form.UnusableExampleError(raw.reason)
    yield raw


def by_length(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Iterable[tuple[str, example_form.AnyExample]],
  batch_size: int,
) -> Iterator[ExampleBatch]:
  """See `LoadedTask.preprocess_by_length`."""
  if not task.sequences:
    left = iter(examples)
    while some := list(itertools.islice(left, batch_size)):
      yield read(task, form, some)
    return
  yield from group_by_length(
    form, (prepare(task, form, [one]) for one in examples), batch_size
  )


def group_by_length(
  form: example_form.ExampleForm,
  prepared: Iterable[Prepared],
  batch_size: int,
) -> Iterator[ExampleBatch]:
  """See `LoadedTask.preprocess_by_length`, of examples with sequences."""
  waiting: dict[tuple[int, ...], list[example_form.PreparedExample]] = {}
  rejected: dict[str, str] = {}
  for usable, unusable in prepared:
    rejected |= unusable
    for example in usable:
      lengths = form.padded_lengths(example)
      group = waiting.setdefault(lengths, [])
      group.append(example)
      if len(group) == batch_size:
        yield stack(form, waiting.pop(lengths), rejected)
        rejected = {}
  for group in waiting.values():
    yield stack(form, group, rejected)
    rejected = {}
  if rejected:
    yield stack(form, [], rejected)


def fingerprint(
  task: task_lib.Task,
  form: example_form.ExampleForm,
  examples: Iterable[tuple[str, example_form.AnyExample]],
) -> str:
  """Of what preprocessing makes of examples, or why it does not work."""
  usable, rejected = prepare(task, form, examples)
  for example_id, reason in rejected.items():
    return f'none: example {example_id} cannot be used, {reason}'
  # Whatever the buckets: an index does not depend on them.
  every = [form.features.lengths(x.features) for x in usable]
  longest = tuple(map(max, zip(*every, strict=True)))
  return fingerprints.of_arrays(form.stack(usable, longest))


def take_examples(batch: ExampleBatch, places: np.ndarray) -> ExampleBatch:
  """Some of the usable examples of a batch, the others left out."""
  return batch._replace(
    ids=[batch.ids[place] for place in places],
    features=jax.tree.map(lambda leaf: leaf[places], batch.features),
    columns={
      name: column.take(pa.array(places))
      for name, column in batch.columns.items()
    },
  )
