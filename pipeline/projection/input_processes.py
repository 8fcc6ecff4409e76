"""Processes that read and preprocess examples, ahead of the devices.

An accelerator takes many more examples a second than one Python process can
decode. So these processes make batches, or with sequences single examples, and
threads of the worker find them ready. What they give is the same, and in the
same order, as what a worker reads for itself.

An example that kills the process that reads it, as a decoder in C may, is left
out and named; the worker lives on.
"""

import collections
from collections.abc import Iterator
import concurrent.futures
from concurrent.futures import process as process_pool
import contextlib
import dataclasses
import os
import threading
import time
from typing import Any

import jax

from influence_core import errors
from influence_core.devices import program as device_program
from pipeline.corpora import corpus as corpus_lib
from pipeline.index import format as index_format
from pipeline.projection import handed_arrays, input_pool
from pipeline.tasks import example_batches, example_form, task as task_lib

# More than these would wait for the storage.
_MAX_PROCESSES = 32
# Of the features that are read at once, if a single batch has less.
_PIECE_BYTES = 32 << 20
# Processes that one range may cost; more of them have another reason, such as
# too little memory.
_MAX_KILLED = 32
# An example that is handed over takes some microseconds, as much as one that
# is read by column; whatever is decoded takes longer.
_FAST_SECONDS = 5e-6
_NUM_TIMED = 64
KILLED = 'the process that preprocessed it was killed'


class InputProcesses:
  """Reads ranges for any number of threads."""

  def __init__(self, source: input_pool.Source, num_processes: int):
    """Starts the processes; they load the task meanwhile.

    Args:
      source: what to read.
      num_processes: at least 1.
    """
    self._directory = handed_arrays.make_directory()
    self._source = dataclasses.replace(source, directory=self._directory.name)
    self._num_processes = num_processes
    self._lock = threading.Lock()
    self._pool: concurrent.futures.ProcessPoolExecutor | None = None
    self._isolation = threading.Lock()
    with contextlib.suppress(process_pool.BrokenProcessPool):
      for _ in range(num_processes):
        self._running_pool().submit(os.getpid)

  def batches(
    self, example_range: index_format.ExampleRange, batch_size: int
  ) -> Iterator[example_batches.ExampleBatch]:
    """What `LoadedTask.preprocess_by_length` gives for a range.

    Raises:
      errors.InputError: The file cannot be read, or too many processes were
        killed.
    """
    form = self._source.form
    size = batch_size * _batches_together(form, batch_size)
    starts = range(example_range.start, example_range.stop, size)
    pieces = (
      dataclasses.replace(
        example_range, start=start, stop=min(start + size, example_range.stop)
      )
      for start in starts
    )
    found = self._in_order(pieces, batch_size)
    if form.features.sequences:
      yield from example_batches.group_by_length(
        form, (_with_trees(form, piece) for piece in found), batch_size
      )
      return
    for batches in found:
      for batch in batches:
        leaves = handed_arrays.take(batch.features)
        yield batch._replace(
          features=_tree(form, leaves) if batch.ids else None
        )

  def _in_order(
    self, pieces: Iterator[index_format.ExampleRange], batch_size: int
  ) -> Iterator[Any]:
    """What is read of pieces, a few of which are worked at ahead."""
    ahead: collections.deque[_Asked] = collections.deque()
    try:
      for piece in pieces:
        ahead.append(self._ask(piece, batch_size))
        if len(ahead) > self._num_processes:
          yield from self._results(ahead.popleft(), batch_size)
      while ahead:
        yield from self._results(ahead.popleft(), batch_size)
    finally:
      for asked in ahead:
        if asked.future:
          asked.future.cancel()

  def _ask(self, piece: index_format.ExampleRange, batch_size: int) -> '_Asked':
    pool = self._running_pool()
    try:
      return _Asked(
        piece, pool, pool.submit(input_pool.read, piece, batch_size)
      )
    except process_pool.BrokenProcessPool:
      return _Asked(piece, pool, None)

  def _results(self, asked: '_Asked', batch_size: int) -> Iterator[Any]:
    """What was read of a piece, in parts if its examples kill processes."""
    with contextlib.suppress(process_pool.BrokenProcessPool):
      if asked.future:
        yield asked.future.result()
        return
    with self._lock:
      if self._pool is asked.pool:  # Of several threads, the first to see it.
        self._pool = None
    with self._isolation:
      yield from _Isolated(self._source).results(asked.piece, batch_size)

  def _running_pool(self) -> concurrent.futures.ProcessPoolExecutor:
    with self._lock:
      if self._pool is None:
        self._pool = input_pool.start(self._source, self._num_processes)
      return self._pool


@dataclasses.dataclass(frozen=True)
class _Asked:
  """A piece, and what will have been read of it; None if it cannot be."""

  piece: index_format.ExampleRange
  pool: concurrent.futures.ProcessPoolExecutor
  future: concurrent.futures.Future | None


class _Isolated:
  """Reads a piece in a process of its own, without what kills it."""

  def __init__(self, source: input_pool.Source):
    self._source = source
    self._pool: concurrent.futures.ProcessPoolExecutor | None = None
    self._num_killed = 0

  def results(
    self, piece: index_format.ExampleRange, batch_size: int
  ) -> Iterator[Any]:
    """What is read of halves of halves, down to the examples that kill.

    Raises:
      errors.InputError: There are too many.
    """
    self._pool = self._pool or input_pool.start(self._source, 1)
    try:
      yield self._pool.submit(input_pool.read, piece, batch_size).result()
    except process_pool.BrokenProcessPool as error:
      self._pool = None
      self._num_killed += 1
      if self._num_killed > _MAX_KILLED:
        raise errors.InputError(
          f'{self._num_killed} processes that preprocessed examples of '
          f'{piece.source_shard} were killed, or could not load the task; run '
          'the same command again, what is done is kept (fewer '
          '--num_preprocess_workers need less memory, 0 shows errors of the '
          'task)'
        ) from error
      if piece.num_examples == 1:
        yield self._rejected(piece)
        return
      middle = (piece.start + piece.stop) // 2
      for start, stop in ((piece.start, middle), (middle, piece.stop)):
        half = dataclasses.replace(piece, start=start, stop=stop)
        yield from self.results(half, batch_size)

  def _rejected(self, piece: index_format.ExampleRange) -> Any:
    rejected = {corpus_lib.id_of(piece.source_shard, piece.start): KILLED}
    if self._source.form.features.sequences:
      return [], rejected
    columns = self._source.form.columns.arrays([])
    return [example_batches.ExampleBatch([], [], columns, rejected)]


def choose_number(
  wanted: int | None, task: task_lib.Task, form: example_form.ExampleForm
) -> int:
  """How many processes read ahead; 0 for none.

  Args:
    wanted: None for one of each core but one beside an accelerator, which is
      fed by it; or for none, where handing examples over takes longer than
      reading them. On CPU the cores are the device, and have enough to do.
    task: whose examples are read.
    form: of them.
  """
  if wanted is not None:
    return wanted
  if (
    jax.default_backend() == 'cpu' or _read_seconds(task, form) < _FAST_SECONDS
  ):
    return 0
  num_cores = len(os.sched_getaffinity(0))
  return max(1, min(num_cores - 1, _MAX_PROCESSES))


def _read_seconds(task: task_lib.Task, form: example_form.ExampleForm) -> float:
  """What an example takes to be read, once its file is open."""
  first = task.corpus.source_shards()[0]
  stop = min(first.stop, first.start + _NUM_TIMED)
  some = index_format.ExampleRange(first.name, first.start, stop, '')
  seconds = 0.0
  for _ in range(2):
    begun = time.perf_counter()
    for _ in example_batches.read_range(task, form, some, _NUM_TIMED):
      pass
    seconds = time.perf_counter() - begun
  return seconds / some.num_examples


def _batches_together(form: example_form.ExampleForm, batch_size: int) -> int:
  """Batches of a piece: small ones would be asked for one by one."""
  kinds = zip(form.features.shapes, form.features.dtypes, strict=True)
  example = [jax.ShapeDtypeStruct(*kind) for kind in kinds]
  num_bytes = batch_size * device_program.num_bytes(example)
  fitting = _PIECE_BYTES // max(1, num_bytes)
  wanted = -(-corpus_lib.READ_TOGETHER // batch_size)
  return max(1, min(fitting, wanted))


def _with_trees(
  form: example_form.ExampleForm, piece: example_batches.Prepared
) -> example_batches.Prepared:
  usable, rejected = piece
  return [
    x._replace(features=_tree(form, x.features)) for x in usable
  ], rejected


def _tree(form: example_form.ExampleForm, leaves: list[Any]) -> Any:
  """Nodes of a tree may be of classes that cannot be sent."""
  return jax.tree.unflatten(form.features.structure, leaves)
