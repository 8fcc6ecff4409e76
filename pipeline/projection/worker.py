"""What a worker process holds and does: ranges in, committed shards out."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import itertools
import os
import threading

import jax
import numpy as np
import pyarrow as pa

from influence_core import errors, types
from influence_core.devices import host_allocator
from pipeline.bases import stored_basis
from pipeline.corpora.corpus import record_of
from pipeline.index import (
  format as index_format,
  rejected_examples,
  vector_codec,
)
from pipeline.projection import (
  input_pool,
  input_processes,
  journal as work_journal,
  tally,
)
from pipeline.projection.request import ProjectionRequest
from pipeline.storage import fingerprints
from pipeline.tasks import (
  checked_projector,
  example_batches,
  loaded_task,
  token_form,
)


@dataclasses.dataclass(frozen=True)
class ProjectionSettings:
  """Paths and small settings: all that travels to the workers.

  Attributes:
    request: what is projected; its paths are absolute, and its task selects the
      parameters of the basis.
    task_fingerprints: what the plan was made for.
    basis_fingerprint: what the plan was made for.
    largest_range: examples of the largest range of the plan.
    journal: directory for the `journal` of workers on the launcher's machine;
      None elsewhere.
  """

  request: ProjectionRequest
  task_fingerprints: dict[str, str]
  basis_fingerprint: str
  largest_range: int = 0
  journal: str | None = None

  @property
  def fingerprints(self) -> dict[str, str]:
    """What every shard depends on, whatever its source."""
    return {
      **self.task_fingerprints,
      'basis': self.basis_fingerprint,
      'basis_dtype': self.request.options.basis_dtype,
      'dtype': self.request.vector_dtype,
      # Indexes of examples are older than those of tokens, and have no name.
      **({'rows': index_format.TOKEN_ROWS} if self.request.per_token else {}),
    }


class ProjectionWorker:
  """Task, parameters, basis and compiled projection, one per process."""

  def __init__(self, settings: ProjectionSettings):
    """Loads everything and checks that it is what the plan was made for.

    Raises:
      errors.InputError: Something is missing or has changed since.
    """
    # A worker process has not come through the command line.
    host_allocator.keep_freed_memory()
    self._settings = settings
    self._tally = tally.Tally(settings.journal)
    with work_journal.working_at(settings.journal, f'start-{os.getpid()}'):
      self._load()

  def _load(self) -> None:
    settings, request = self._settings, self._settings.request
    record = stored_basis.load_record(request.basis)
    self._loaded = loaded_task.LoadedTask.unchecked(
      request.task, probe=stored_basis.load_probe(record)
    )
    fingerprints.check_equal(
      self._loaded.fingerprints,
      settings.task_fingerprints,
      what=f'the task loaded by a worker ({request.task.import_path})',
      next_step='give all workers the same code and checkpoint',
    )
    fingerprints.check_equal(
      {'basis': record.fingerprint},
      {'basis': settings.basis_fingerprint},
      what=f'the basis loaded by a worker ({request.basis})',
      next_step='run project again',
    )
    self._loaded.check_loss()
    if request.per_token:
      self._loaded = self._loaded.by_token()
    # They start while the projection is compiled.
    self._input = self._start_input()
    basis = stored_basis.load(record)
    self._projection_dim = basis.projection_dim
    self._codec = vector_codec.VectorCodec(
      request.vector_dtype, basis.eigenvalues, record.layers
    )
    self._projector = checked_projector.make_projector(
      self._loaded,
      basis,
      request.options,
      num_examples=settings.largest_range,
      per_token=request.per_token,
    )
    # Threads of a process take turns on its accelerators, whose memory is
    # planned for one call; on CPU, calls that overlap keep the cores busy.
    self._device_turn: contextlib.AbstractContextManager = (
      contextlib.nullcontext()
      if jax.default_backend() == 'cpu'
      else threading.Lock()
    )

  def _start_input(self) -> input_processes.InputProcesses | None:
    request = self._settings.request
    number = input_processes.choose_number(
      request.num_preprocess_workers, self._loaded.task, self._loaded.form
    )
    if not number:
      return None
    source = input_pool.Source(
      request.task, self._loaded.form, request.per_token
    )
    return input_processes.InputProcesses(source, number)

  @property
  def totals(self) -> tally.Totals:
    """How busy this process' devices are, and what it rejected."""
    return self._tally.totals()

  def project_range(
    self, example_range: index_format.ExampleRange
  ) -> index_format.Shard:
    """The committed shard of a range, projected only if it is not there.

    Raises:
      errors.InputError: The source shard changed after the plan was made, or
        a shard of an interrupted run has other columns.
    """
    index = self._settings.request.index
    shard = index_format.find_shard(index, example_range)
    if shard:
      self._loaded.form.columns.check_same(
        index_format.read_rows(index, shard).schema,
        f'the shard {shard.rows.name}',
      )
      return shard
    journal = self._settings.journal
    with work_journal.working_at(journal, example_range.stem) as step:
      content = self._project(example_range, step)
    self._check_source_unchanged(example_range)
    return index_format.write_shard(index, example_range, content, self._codec)

  def _check_source_unchanged(
    self, example_range: index_format.ExampleRange
  ) -> None:
    corpus = self._loaded.task.corpus
    found = index_format.range_fingerprint(
      corpus.shard_fingerprint(example_range.source_shard),
      self._settings.fingerprints,
    )
    if found != example_range.fingerprint:
      raise errors.InputError(
        f'source shard {example_range.source_shard} changed after the plan was '
        'made; run project again'
      )

  def _project(
    self, example_range: index_format.ExampleRange, step: Callable[[], None]
  ) -> index_format.ShardContent:
    rejected: dict[str, str] = {}
    vectors = [np.empty((0, self._projection_dim), np.float32)]
    columns = self._loaded.form.columns
    tables = [_rows_table([], [], [], columns.arrays([]))]
    for batch in self._batches(example_range):
      rejected |= batch.rejected
      if batch.ids:
        rows, projected, unusable = self._project_batch(batch)
        rejected |= unusable
        vectors.append(projected)
        tables.append(rows)
      self._tally.keep()
      step()
    self._tally.reject(len(rejected))
    self._tally.keep()
    every, rows = np.concatenate(vectors), pa.concat_tables(tables)
    if self._loaded.task.sequences:
      order = _order_of_records(rows['id'].to_pylist())
      every, rows = every[order], rows.take(pa.array(order))
    return index_format.ShardContent(every, rows, rejected)

  def _project_batch(
    self, batch: example_batches.ExampleBatch
  ) -> tuple[pa.Table, np.ndarray, dict[str, str]]:
    """Rows, their [rows, projection_dim] vectors, and reasons by id."""
    with self._device_turn, self._tally.on_device():
      result = self._projector.project(batch.features)
    count = len(batch.ids)
    finite = np.logical_and.reduce(
      [np.isfinite(leaf).reshape(count, -1).all(axis=1) for leaf in result]
    )
    rejected: dict[str, str] = {}
    if not finite.all():
      unusable = itertools.compress(batch.ids, ~finite)
      rejected = dict.fromkeys(unusable, rejected_examples.NOT_FINITE)
      batch = example_batches.take_examples(batch, np.flatnonzero(finite))
      result = types.ProjectedExamples(*(leaf[finite] for leaf in result))
    if not self._settings.request.per_token:
      rows = _rows_table(
        batch.ids, result.losses, result.squared_gradient_norms, batch.columns
      )
      return rows, np.asarray(result.projections), rejected
    nothing = np.zeros(len(batch.ids))
    rows, vectors = token_form.rows_of(
      _rows_table(batch.ids, nothing, nothing, batch.columns), result
    )
    silent = {*batch.ids} - {*rows['id'].to_pylist()}
    return rows, vectors, rejected | dict.fromkeys(silent, token_form.NO_TOKEN)

  def _batches(
    self, example_range: index_format.ExampleRange
  ) -> Iterator[example_batches.ExampleBatch]:
    size = self._projector.call_size
    if self._input:
      return self._input.batches(example_range, size)
    return example_batches.read_range(
      self._loaded.task, self._loaded.form, example_range, size
    )


def _order_of_records(ids: list[str]) -> np.ndarray:
  """Of examples of one file, which came by length."""
  return np.argsort(list(map(record_of, ids)), kind='stable')


def _rows_table(ids, losses, squared_gradient_norms, columns) -> pa.Table:
  return pa.table(
    {
      'id': pa.array(ids, pa.string()),
      'loss': pa.array(losses, pa.float32()),
      'squared_gradient_norm': pa.array(squared_gradient_norms, pa.float32()),
      **columns,
    }
  )
