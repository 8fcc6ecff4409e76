"""Times the work of a projection on a few ranges of a real corpus."""

from collections.abc import Iterator
import contextlib
import dataclasses
import math
import tempfile
import time

import numpy as np
import pyarrow as pa

from influence_core import errors
from influence_core.devices import program as device_program
from pipeline.corpora import corpus as corpus_lib
from pipeline.index import format as index_format, vector_codec
from pipeline.projection import plan
from pipeline.projection.workload import Workload
from pipeline.tasks import checked_projector, example_batches, loaded_task

# Requests for the records of a range: the end of the file, its index, records.
_READS_OF_RECORDS = 3.0
# Files of a few milliseconds take very different times.
_ENOUGH_SECONDS = 2.0


@dataclasses.dataclass
class _Totals:
  """Seconds and sizes of the ranges so far."""

  read: float = 0.0
  compile: float = 0.0
  project: float = 0.0
  write: float = 0.0
  num_bytes: int = 0
  num_examples: int = 0
  num_used: int = 0
  num_ranges: int = 0

  @contextlib.contextmanager
  def timing(self, part: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    setattr(self, part, getattr(self, part) + time.monotonic() - begun)

  @property
  def seconds(self) -> float:
    return self.read + self.project + self.write


def measure(
  loaded: loaded_task.LoadedTask,
  projector: checked_projector.Projector,
  codec: vector_codec.VectorCodec,
  *,
  num_ranges: int,
  range_size: int,
  start_seconds: float,
  start_bytes: int,
) -> Workload:
  """Reads, projects and writes some ranges, drawn from all of the corpus.

  Args:
    loaded: the task.
    projector: of a basis, compiled as far as it is.
    codec: how vectors are stored.
    num_ranges: to time, at most as many as there are; more of them where they
      take a moment only.
    range_size: most examples of each.
    start_seconds: that a worker takes until it is as far.
    start_bytes: that it reads for that.

  Raises:
    errors.InputError: None of the examples can be used.
  """
  totals = _Totals()
  compiled: set = set()
  for one in _drawn(loaded.task.corpus, range_size):
    _time_range(totals, loaded, projector, codec, one, compiled)
    if totals.num_ranges >= num_ranges and totals.seconds > _ENOUGH_SECONDS:
      break
  if not totals.num_used:
    raise errors.InputError(
      f'none of {totals.num_examples:,} examples can be used; run influence '
      'doctor'
    )
  return Workload(
    totals.read / totals.num_examples,
    totals.project / totals.num_used,
    totals.write / totals.num_used,
    start_seconds + totals.compile,
    start_bytes,
    totals.num_bytes / totals.num_used,
    _READS_OF_RECORDS,
    math.ceil(totals.num_examples / totals.num_ranges),
  )


def _drawn(
  corpus: corpus_lib.Corpus, range_size: int
) -> Iterator[index_format.ExampleRange]:
  """Ranges that a projection would have, in random order."""
  every = [
    one
    for shard in corpus.source_shards()
    for one in plan.cut(shard, range_size, 'measured')
  ]
  for place in np.random.default_rng(0).permutation(len(every)):
    yield every[place]


def _time_range(
  totals: _Totals,
  loaded: loaded_task.LoadedTask,
  projector: checked_projector.Projector,
  codec: vector_codec.VectorCodec,
  one: index_format.ExampleRange,
  compiled: set,
) -> None:
  """Adds what a range takes; `compiled` are shapes that need no compiling."""
  with totals.timing('read'):
    batches = list(
      example_batches.read_range(
        loaded.task, loaded.form, one, projector.call_size
      )
    )
  totals.num_ranges += 1
  totals.num_examples += one.num_examples
  vectors, tables = [], []
  rejected: dict[str, str] = {}
  for batch in batches:
    rejected |= batch.rejected
    if not batch.ids:
      continue
    shapes = device_program.example_shapes(batch.features)
    if shapes not in compiled:  # Once by every worker.
      compiled.add(shapes)
      with totals.timing('compile'):
        projector.project(batch.features)
    with totals.timing('project'):
      projected = projector.project(batch.features)
      vectors.append(np.asarray(projected.projections))
    tables.append(_rows(batch, projected))
  if vectors:
    totals.num_used += sum(map(len, vectors))
    content = index_format.ShardContent(
      np.concatenate(vectors), pa.concat_tables(tables), rejected
    )
    with totals.timing('write'):
      totals.num_bytes += _write(one, content, codec)


def _rows(batch: example_batches.ExampleBatch, projected) -> pa.Table:
  return pa.table(
    {
      'id': batch.ids,
      'loss': np.asarray(projected.losses, np.float32),
      'squared_gradient_norm': np.asarray(
        projected.squared_gradient_norms, np.float32
      ),
      **batch.columns,
    }
  )


def _write(
  measured: index_format.ExampleRange,
  content: index_format.ShardContent,
  codec: vector_codec.VectorCodec,
) -> int:
  """Bytes of a shard, written to a place of its own."""
  with tempfile.TemporaryDirectory(prefix='influence_estimate_') as directory:
    shard = index_format.write_shard(directory, measured, content, codec)
  return shard.vectors.num_bytes + shard.rows.num_bytes
