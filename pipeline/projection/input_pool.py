"""A pool of processes that load a task and read ranges of its corpus."""

import concurrent.futures
import dataclasses
import multiprocessing
import os
import shutil
import signal
import threading
import time

import jax

from pipeline.index import format as index_format
from pipeline.projection import handed_arrays
from pipeline.tasks import (
  example_batches,
  example_form,
  task as task_lib,
  token_form,
)
from pipeline.tasks.reference import TaskReference

_PARENT_INTERVAL_SECONDS = 1.0

# Batches without sequences, or examples with them; features as arrays that were
# handed over, or as lists of leaves.
Piece = list[example_batches.ExampleBatch] | example_batches.Prepared


@dataclasses.dataclass(frozen=True)
class Source:
  """What is read: all that a process must know.

  Attributes:
    task: how to make the task.
    form: of its examples.
    per_token: whether rows of tokens are wanted.
    directory: for `handed_arrays`.
  """

  task: TaskReference
  form: example_form.ExampleForm
  per_token: bool = False
  directory: str = ''

  def load(self) -> task_lib.Task:
    task = self.task.load()
    return token_form.by_token(task) if self.per_token else task


def start(
  source: Source, num_processes: int
) -> concurrent.futures.ProcessPoolExecutor:
  """A pool; each of its processes makes the task when it is first needed.

  Args:
    source: what is read.
    num_processes: at most.
  """
  return concurrent.futures.ProcessPoolExecutor(
    num_processes,
    # A fork of a process with threads may never end.
    mp_context=multiprocessing.get_context('spawn'),
    initializer=_begin,
    initargs=(source, os.getpid()),
  )


# Of a process of the pool.
_loaded: tuple[task_lib.Task, Source] | None = None


def _begin(source: Source, parent: int) -> None:
  """Makes the task, on the CPU: devices belong to the worker."""
  global _loaded
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # The worker ends them.
  threading.Thread(
    target=_end_with, args=(parent, source.directory), daemon=True
  ).start()
  jax.config.update('jax_platforms', 'cpu')
  _loaded = source.load(), source


def _end_with(parent: int, directory: str) -> None:
  """A worker that is killed cannot tell them, nor clean up."""
  while os.getppid() == parent:
    time.sleep(_PARENT_INTERVAL_SECONDS)
  shutil.rmtree(directory, ignore_errors=True)
  os._exit(1)


def read(piece: index_format.ExampleRange, batch_size: int) -> Piece:
  """Examples of a range, in a process of the pool.

  Args:
    piece: of a source shard.
    batch_size: of batches, where there are no sequences.
  """
  assert _loaded is not None
  task, source = _loaded
  form = source.form
  if form.features.sequences:
    examples = task.corpus.read_range(
      piece.source_shard, piece.start, piece.stop
    )
    usable, rejected = example_batches.prepare(task, form, examples)
    flat = [
      x._replace(raw={}, features=jax.tree.leaves(x.features)) for x in usable
    ]
    return flat, rejected
  return [
    batch._replace(
      features=handed_arrays.hand_over(
        jax.tree.leaves(batch.features), source.directory
      )
    )
    for batch in example_batches.read_range(task, form, piece, batch_size)
  ]
