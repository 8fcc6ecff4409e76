"""Processes that read and preprocess examples, ahead of the devices.

An accelerator takes many more examples a second than one Python process can
decode. So these processes make batches, or with sequences single examples, and
threads of the worker find them ready. What they give is the same, and in the
same order, as what a worker reads for itself.
"""

import collections
from collections.abc import Iterator
import concurrent.futures
from concurrent.futures import process as process_pool
import dataclasses
import multiprocessing
import os
import signal
import threading
import time
from typing import Any

import jax

from influence_core import errors
from pipeline.corpora import corpus as corpus_lib
from pipeline.index import format as index_format
from pipeline.tasks import (
  example_batches,
  example_form,
  task as task_lib,
  token_form,
)
from pipeline.tasks.reference import TaskReference

# More than these would wait for the storage.
_MAX_PROCESSES = 32
# Of the features that are read at once, if a single batch has less.
_PIECE_BYTES = 32 << 20
_PARENT_INTERVAL_SECONDS = 1.0

# Batches without sequences, or examples with them; features as lists of leaves.
_Piece = list[example_batches.ExampleBatch] | example_batches.Prepared


@dataclasses.dataclass(frozen=True)
class Source:
  """What is read: all that a process must know.

  Attributes:
    task: how to make the task.
    form: of its examples.
    per_token: whether rows of tokens are wanted.
  """

  task: TaskReference
  form: example_form.ExampleForm
  per_token: bool = False

  def load(self) -> task_lib.Task:
    task = self.task.load()
    return token_form.by_token(task) if self.per_token else task


class InputProcesses:
  """Reads ranges for any number of threads."""

  def __init__(self, source: Source, num_processes: int):
    """Starts the processes; they load the task meanwhile.

    Args:
      source: what to read.
      num_processes: at least 1.
    """
    self._source = source
    self._num_processes = num_processes
    self._lock = threading.Lock()
    self._pool: concurrent.futures.ProcessPoolExecutor | None = None
    for _ in range(num_processes):
      self._running_pool().submit(os.getpid)

  def batches(
    self, example_range: index_format.ExampleRange, batch_size: int
  ) -> Iterator[example_batches.ExampleBatch]:
    """What `LoadedTask.preprocess_by_length` gives for a range.

    Raises:
      errors.InputError: The file cannot be read, or a process was killed.
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
        yield batch._replace(features=_tree(form, batch.features))

  def _in_order(
    self, pieces: Iterator[index_format.ExampleRange], batch_size: int
  ) -> Iterator[Any]:
    """What is read of pieces, a few of which are worked at ahead."""
    ahead: collections.deque[concurrent.futures.Future] = collections.deque()
    try:
      for piece in pieces:
        ahead.append(self._submit(piece, batch_size))
        if len(ahead) > self._num_processes:
          yield self._result(ahead.popleft())
      while ahead:
        yield self._result(ahead.popleft())
    finally:
      for future in ahead:
        future.cancel()

  def _submit(
    self, piece: index_format.ExampleRange, batch_size: int
  ) -> concurrent.futures.Future:
    try:
      return self._running_pool().submit(_read, piece, batch_size)
    except process_pool.BrokenProcessPool as error:
      raise self._killed() from error

  def _result(self, future: concurrent.futures.Future) -> Any:
    try:
      return future.result()
    except process_pool.BrokenProcessPool as error:
      raise self._killed() from error

  def _killed(self) -> errors.InputError:
    """The next range has new processes."""
    with self._lock:
      self._pool = None
    return errors.InputError(
      'a process that preprocesses examples was killed, or could not load the '
      'task; run the same command again, what is done is kept (fewer '
      '--num_preprocess_workers need less memory, 0 shows errors of the task)'
    )

  def _running_pool(self) -> concurrent.futures.ProcessPoolExecutor:
    with self._lock:
      if self._pool is None:
        self._pool = concurrent.futures.ProcessPoolExecutor(
          self._num_processes,
          # A fork of a process with threads may never end.
          mp_context=multiprocessing.get_context('spawn'),
          initializer=_begin,
          initargs=(self._source, os.getpid()),
        )
      return self._pool


def choose_number(wanted: int | None) -> int:
  """How many processes read ahead; 0 for none.

  Args:
    wanted: None for one of each core but one beside an accelerator, which is
      fed by it. On CPU the cores are the device, and have enough to do.
  """
  if wanted is not None:
    return wanted
  if jax.default_backend() == 'cpu':
    return 0
  num_cores = len(os.sched_getaffinity(0))
  return max(1, min(num_cores - 1, _MAX_PROCESSES))


def _batches_together(form: example_form.ExampleForm, batch_size: int) -> int:
  """Batches of a piece: small ones would be asked for one by one."""
  leaves = zip(form.features.shapes, form.features.dtypes, strict=True)
  num_bytes = sum(
    jax.ShapeDtypeStruct(shape, dtype).size * dtype.itemsize
    for shape, dtype in leaves
  )
  fitting = _PIECE_BYTES // max(1, num_bytes * batch_size)
  wanted = -(-corpus_lib.READ_TOGETHER // batch_size)
  return max(1, min(fitting, wanted))


def _with_trees(
  form: example_form.ExampleForm, piece: example_batches.Prepared
) -> example_batches.Prepared:
  usable, rejected = piece
  return [
    x._replace(features=_tree(form, x.features)) for x in usable
  ], rejected


def _tree(form: example_form.ExampleForm, leaves: list[Any] | None) -> Any:
  """Nodes of a tree may be of classes that cannot be sent."""
  if leaves is None:
    return None
  return jax.tree.unflatten(form.features.structure, leaves)


# The rest runs in the processes.

_loaded: tuple[task_lib.Task, example_form.ExampleForm] | None = None


def _begin(source: Source, parent: int) -> None:
  """Makes the task, on the CPU: devices belong to the worker."""
  global _loaded
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The worker ends them.
  threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
  jax.config.update('jax_platforms', 'cpu')
  _loaded = source.load(), source.form


def _end_with(parent: int) -> None:
  """A worker that is killed cannot tell them."""
  while os.getppid() == parent:
    time.sleep(_PARENT_INTERVAL_SECONDS)
  os._exit(1)


def _read(piece: index_format.ExampleRange, batch_size: int) -> _Piece:
  assert _loaded is not None
  task, form = _loaded
  examples = task.corpus.read_range(piece.source_shard, piece.start, piece.stop)
  if form.features.sequences:
    usable, rejected = example_batches.prepare(task, form, examples)
    flat = [
      x._replace(raw={}, features=jax.tree.leaves(x.features)) for x in usable
    ]
    return flat, rejected
  return [
    batch._replace(features=jax.tree.leaves(batch.features))
    if batch.ids
    else batch
    for batch in example_batches.by_length(task, form, examples, batch_size)
  ]
