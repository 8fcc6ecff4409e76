"""Queries: read from wherever they are, projected, and what the model says."""

from collections.abc import Callable, Iterable, Iterator, Sequence
import functools
import json
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa

from influence_core import errors, types, user_code
from influence_core.devices import (
  memory as device_memory,
  multi_device,
  parameter_layout,
  program as device_program,
)
from pipeline.corpora import row_readers
from pipeline.corpora.corpus import (
  ID_KEY,
  Corpus,
  RawExample,
  UndecodableExample,
  id_of,
  read_each,
)
from pipeline.storage import file_identity, files as storage
from pipeline.tasks import (
  checked_projector,
  example_batches,
  example_form,
  loaded_task,
)
from pipeline.tasks.query_choice import STANDARD_INPUT, QueryChoice

# A split, raw examples themselves, or any place that they come from.
Queries = str | Sequence[RawExample] | QueryChoice

# Queries that the model is evaluated on at a time, at most.
_EVALUATED_TOGETHER = 64

Examples = Iterable[tuple[str, example_form.AnyExample]]


def read(
  loaded: loaded_task.LoadedTask, queries: Queries
) -> example_batches.ExampleBatch:
  """Reads and preprocesses queries.

  Args:
    loaded: the task.
    queries: split of its corpus, raw examples, or where they come from.

  Raises:
    errors.InputError: There are none, or one of them cannot be used.
  """
  return preprocess(loaded, raw_examples(loaded.task.corpus, queries))


def raw_examples(corpus: Corpus, queries: Queries) -> Examples:
  """Queries as they are read, before any task's preprocessing.

  Args:
    corpus: of the task.
    queries: split of the corpus, raw examples, or where they come from.

  Returns:
    Each with its id.

  Raises:
    errors.InputError: They cannot be read.
  """
  if isinstance(queries, str):
    queries = QueryChoice(query_split=queries)
  if not isinstance(queries, QueryChoice):
    return _numbered('query', queries)
  if queries.query_split:
    corpus = corpus.with_split(queries.query_split)
    corpus.check()
    return corpus.read_positions(range(corpus.num_examples))
  if queries.queries:
    return read_file(queries.queries)
  return _by_id(corpus, queries.query_ids)


def preprocess(
  loaded: loaded_task.LoadedTask, examples: Examples
) -> example_batches.ExampleBatch:
  """Queries in the form of the task's examples.

  Raises:
    errors.InputError: There are none, or one of them cannot be used.
  """
  batch = loaded.preprocess_batch(examples)
  if batch.rejected:
    raise _unusable(batch.rejected)
  if not batch.ids:
    raise errors.InputError('there are no queries, expected at least one')
  return batch


def read_file(path: str) -> Examples:
  """Raw examples of a file, or of standard input, each with its id.

  Raises:
    errors.InputError: It is missing, damaged, or of no kind that is read.
  """
  if path == STANDARD_INPUT:
    return _numbered('stdin', _parsed(sys.stdin))
  path = storage.absolute(path)
  kind = row_readers.kind_of(path)
  if kind is None:
    raise errors.InputError(
      f'queries are {path}, expected a file of one of '
      f'{", ".join(row_readers.READERS)}; or - for standard input'
    )
  if file_identity.identify(path) is None:
    raise errors.InputError(f'{path} is missing; correct the path')
  reader = row_readers.READERS[kind](())
  rows = read_each(
    functools.partial(reader.read, path), range(reader.num_rows(path))
  )
  return _numbered(path.rpartition('/')[2], rows)


def _parsed(lines: Iterable[str]) -> Iterator[RawExample]:
  """Objects of JSON Lines.

  Raises:
    errors.InputError: A line is none.
  """
  for number, line in enumerate(lines, start=1):
    try:
      row = json.loads(line) if line.strip() else {}
      if not isinstance(row, dict):
        raise ValueError(f'it is {type(row).__name__}')
    except ValueError as error:
      raise errors.InputError(
        f'line {number} of standard input is no object of JSON ({error}); '
        'give a query on each line'
      ) from error
    if line.strip():
      yield row


def _numbered(
  name: str, rows: Iterable[RawExample | UndecodableExample]
) -> Examples:
  for number, raw in enumerate(rows):
    query_id = id_of(name, number)
    if not isinstance(raw, UndecodableExample):
      raw = {**raw, ID_KEY: query_id}
    yield query_id, raw


def _by_id(corpus: Corpus, ids: Sequence[str]) -> Examples:
  for example_id in ids:
    name, _, number = example_id.rpartition('__')
    if not (name and number.isdecimal()):
      raise errors.InputError(
        f'query_ids has {example_id!r}, expected ids such as '
        f'{corpus.source_shards()[0].name}__0, as results have them'
      )
  return corpus.read_ids(ids)


def project(
  batch: example_batches.ExampleBatch,
  projector: checked_projector.Projector,
  solved_ids: tuple[str, ...] = (),
) -> np.ndarray:
  """[num_queries, projection_dim] float32 projections.

  Args:
    batch: the queries.
    projector: of the basis.
    solved_ids: of the queries that the basis is made of, if it is: each is the
      only one that its own vector stands for.

  Raises:
    errors.InputError: A gradient is not finite, or the basis is not made of
      these queries.
  """
  if solved_ids:
    return _own_vectors(batch.ids, solved_ids)
  projections = np.asarray(projector.project(batch.features).projections)
  bad = ~np.isfinite(projections).all(axis=1)
  if bad.any():
    reason = 'its gradient is not finite'
    raise _unusable({batch.ids[x]: reason for x in np.flatnonzero(bad)})
  return projections


def described(
  loaded: loaded_task.LoadedTask, batch: example_batches.ExampleBatch
) -> pa.Table:
  """What is known of queries: id, columns, predictions, loss, measurement.

  Raises:
    errors.InputError: The task's predict fails.
  """
  task = loaded.task

  def evaluate(
    params: types.Params, features: types.Features
  ) -> dict[str, Any]:
    found = dict(task.predict(params, features)) if task.predict else {}
    found['loss'] = task.per_example_loss(params, features)
    if task.measurement:
      found['measurement'] = task.measurement(params, features)
    # Tables have no bfloat16.
    return jax.tree.map(_as_float32, found)

  columns = {'id': pa.array(batch.ids), **batch.columns}
  with user_code.user_errors(f'predict of task {task.name}'):
    values = _in_pieces(evaluate, loaded.params, batch)
    for name, value in values.items():
      columns[name] = pa.array(value)
    return pa.table(columns)


def _in_pieces(
  evaluate: Callable[..., dict[str, Any]],
  params: types.Params,
  batch: example_batches.ExampleBatch,
) -> dict[str, np.ndarray]:
  """What is evaluated of all examples, as many at a time as fit."""
  placed = parameter_layout.fit_devices(params)
  jitted = jax.jit(evaluate)

  def compile_evaluation(size: int) -> device_program.Program:
    shapes = device_program.with_lead(batch.features, size)
    lowered = jitted.lower(placed, shapes)
    return device_program.compile_lowered(lowered, size)

  count = len(batch.ids)
  program = device_program.largest_program(
    compile_evaluation,
    device_memory.default_budget_bytes() - parameter_layout.shard_bytes(placed),
    preferred=_EVALUATED_TOGETHER,
    num_examples=count,
  )
  parts = []
  for start in range(0, count, program.micro_batch):
    features = multi_device.filled(batch.features, start, program.micro_batch)
    parts.append(jax.tree.map(np.asarray, program.compiled(placed, features)))
  return {
    name: np.concatenate([part[name] for part in parts])[:count]
    for name in parts[0]
  }


def _as_float32(array: types.Array) -> types.Array:
  """Floats of whatever type as float32; other numbers as they are."""
  is_float = jnp.issubdtype(jnp.result_type(array), jnp.floating)
  return jnp.asarray(array, jnp.float32) if is_float else array


def _own_vectors(ids: list[str], solved_ids: tuple[str, ...]) -> np.ndarray:
  places = {solved: place for place, solved in enumerate(solved_ids)}
  for example_id in ids:
    if example_id not in places:
      raise errors.InputError(
        f'query {example_id} is not one of the {len(places)} that the basis '
        f'was made of, {solved_ids[0]} to {solved_ids[-1]}; run query-basis '
        'for it'
      )
  rows = np.zeros((len(ids), len(solved_ids)), np.float32)
  rows[np.arange(len(ids)), [places[example_id] for example_id in ids]] = 1
  return rows


def _unusable(rejected: dict[str, str]) -> errors.InputError:
  example_id, reason = next(iter(rejected.items()))
  return errors.InputError(
    f'{len(rejected)} queries cannot be used, the first is {example_id} '
    f'({reason}); correct it or leave it out'
  )
