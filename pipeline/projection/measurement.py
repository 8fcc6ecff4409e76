"""Times the work of a projection on a few ranges of a real corpus."""

from collections.abc import Iterator
import tempfile
import time

import numpy as np
import pyarrow as pa

from influence_core import errors
from influence_core.devices import program as device_program
from pipeline.index import format as index_format, vector_codec
from pipeline.projection.workload import Workload
from pipeline.tasks import checked_projector, example_batches, loaded_task

# Requests for the records of a range: the end of the file, its index, records.
_READS_OF_RECORDS = 3.0


def measure(
  loaded: loaded_task.LoadedTask,
  projector: checked_projector.Projector,
  codec: vector_codec.VectorCodec,
  *,
  num_ranges: int,
  range_size: int,
  start_seconds: float,
) -> Workload:
  """Reads, projects and writes some ranges, spread over the corpus.

  Args:
    loaded: the task.
    projector: of a basis, compiled as far as it is.
    codec: how vectors are stored.
    num_ranges: to time, at most as many as there are.
    range_size: examples of each.
    start_seconds: that a worker takes until it is as far.

  Raises:
    errors.InputError: None of the examples can be used.
  """
  read = project = write = num_bytes = 0.0
  count = used = 0
  known: set = set()
  for positions in _ranges(
    loaded.task.corpus.num_examples, num_ranges, range_size
  ):
    begun = time.monotonic()
    batches = list(
      loaded.preprocess_by_length(
        loaded.task.corpus.read_positions(positions), projector.call_size
      )
    )
    read += time.monotonic() - begun
    count += len(positions)
    vectors, tables = [], []
    rejected: dict[str, str] = {}
    for batch in batches:
      rejected |= batch.rejected
      if not batch.ids:
        continue
      shapes = device_program.example_shapes(batch.features)
      if shapes not in known:  # Compiled once by every worker.
        known.add(shapes)
        begun = time.monotonic()
        projector.project(batch.features)
        start_seconds += time.monotonic() - begun
      begun = time.monotonic()
      projected = projector.project(batch.features)
      vectors.append(np.asarray(projected.projections))
      project += time.monotonic() - begun
      tables.append(_rows(batch, projected))
    if vectors:
      used += sum(map(len, vectors))
      begun = time.monotonic()
      num_bytes += _write(
        positions,
        index_format.ShardContent(
          np.concatenate(vectors), pa.concat_tables(tables), rejected
        ),
        codec,
      )
      write += time.monotonic() - begun
  if not used:
    raise errors.InputError(
      f'none of {count:,} examples can be used; run influence doctor'
    )
  return Workload(
    read / count,
    project / used,
    write / used,
    start_seconds,
    num_bytes / used,
    _READS_OF_RECORDS,
    range_size,
  )


def _ranges(size: int, num_ranges: int, range_size: int) -> Iterator[range]:
  """Ranges of a corpus, spread evenly."""
  count = min(num_ranges, max(1, size // range_size))
  last = max(0, size - range_size)
  for start in np.unique(np.linspace(0, last, count).astype(int)).tolist():
    yield range(start, min(size, start + range_size))


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
  positions: range,
  content: index_format.ShardContent,
  codec: vector_codec.VectorCodec,
) -> int:
  """Bytes of a shard, written to a place of its own."""
  with tempfile.TemporaryDirectory(prefix='influence_estimate_') as directory:
    shard = index_format.write_shard(
      directory,
      index_format.ExampleRange(
        'measured', positions.start, positions.stop, 'measured'
      ),
      content,
      codec,
    )
  return shard.vectors.num_bytes + shard.rows.num_bytes
