"""An index from nothing to answers, for more and more examples.

    python -m tests.benchmarks.benchmark_scale --dir D --examples 100000 1000000

For each size a corpus of 100 files (64 numbers an example) is written, a basis
of 16 eigenpairs fitted, and the corpus projected, verified, reindexed with
nothing to do and with one file changed, and asked: by the commands themselves,
each in a process of its own, start included. Printed are seconds, examples/s,
the largest memory that each process ever had, with and without mapped files of
the corpus, and bytes an example; and for the projection its rate relative to
the bare kernel, which projects one batch in memory again and again in a process
of the same machine. Of three sizes or more, the seconds of the last are
compared with the line through the others, and with what `estimate` says after
a few ranges of each corpus, for one worker (so give --num_workers 1).

With --ranges N, a manifest of so many ranges is published and opened besides:
250,000 are those of a billion examples.
"""

import argparse
from collections.abc import Sequence
import dataclasses
import itertools
import json
import os
from pathlib import Path
import time
from typing import Any

import numpy as np
import psutil

from influence_core.projection.options import ProjectionOptions
from pipeline.bases import stored_basis
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
)
from pipeline.projection import job as projection_job
from pipeline.projection.request import ProjectionRequest
from pipeline.tasks import checked_projector, loaded_task
from pipeline.tasks.reference import TaskReference
from tests.benchmarks import benchmark_projection, scale_task
from tests.benchmarks.benchmark_full_size import run_command

_NUM_FILES = 100
_TASK = 'tests.benchmarks.scale_task:make_task'
_BARE_SECONDS = 5.0


class Run:
  """What is done with a corpus of one size."""

  def __init__(
    self,
    directory: Path,
    num_examples: int,
    num_workers: int,
    all_sizes: Sequence[int],
  ):
    """Writes the corpus, unless it is there."""
    self.num_examples = num_examples
    self._all_sizes = all_sizes
    self._num_workers = num_workers
    self._path = directory / str(num_examples)
    self._data = self._path / 'data'
    if not self._data.exists():
      scale_task.write(self._data, num_examples, _NUM_FILES)
    self._task = ['--task', _TASK, '--task_arg', f'path={self._data}']
    self._index = str(self._path / 'index')
    self._basis = str(self._path / 'basis')

  def measure(self) -> None:
    fit = ['--projection_dim', '16', '--num_iterations', '40']
    self._command('fit', ['fit-basis', *self._task, '--out', self._basis, *fit])
    reference = TaskReference(_TASK, {'path': str(self._data)})
    bare = benchmark_projection.in_own_process(
      bare_rate, reference, self._basis
    )
    self._show('bare kernel', {'seconds': 1 / bare}, 1)
    self.predicted_seconds = self._predict()
    self.project_seconds = self._project('project', bare)
    self._project('reindex, nothing to do')
    size = self.num_examples // _NUM_FILES
    scale_task.write_file(self._data, 0, _NUM_FILES, size, seed=10**6)
    self._project('reindex, 1 % changed')
    self._command('verify', ['verify', '--index', self._index])
    for count in (1, 256):
      ask = ['topk', '--index', self._index, '--query_split', f'test[:{count}]']
      self._command(f'topk, {count} queries', ask)
    self._command('self-influence', ['self-influence', '--index', self._index])
    print(json.dumps({'n': self.num_examples, **self._sizes()}), flush=True)

  def _predict(self) -> dict[int, float]:
    """Of each size that the project estimates, by this corpus."""
    asked = ['estimate', *self._task, '--basis', self._basis]
    asked += ['--num_workers', '1', '--examples', *map(str, self._all_sizes)]
    found = self._command('estimate', asked)['result']['estimates']
    return {x['num_examples']: x['wall_hours'] * 3600 for x in found}

  def _project(self, what: str, bare: float | None = None) -> float:
    where = ['--basis', self._basis, '--index', self._index]
    workers = ['--num_workers', str(self._num_workers)]
    done = self._command(what, ['project', *self._task, *where, *workers], bare)
    return done['seconds']

  def _command(
    self, what: str, argv: list[str], bare: float | None = None
  ) -> dict[str, Any]:
    done = run_command(argv)
    self._show(what, done, self.num_examples, bare)
    return done

  def _show(
    self,
    what: str,
    done: dict[str, Any],
    count: int,
    bare: float | None = None,
  ) -> None:
    seconds = done['seconds']
    row = {
      'n': self.num_examples,
      'what': what,
      'seconds': float(f'{seconds:.3g}'),
      'examples_per_second': round(count / seconds),
      **{
        f'{name}_mib': round(done[f'{name}_bytes'] / 2**20)
        for name in ('peak', 'peak_private')
        if f'{name}_bytes' in done
      },
    }
    if bare:
      row['device_share'] = done['result']['device_share']
      row['of_bare_kernel'] = round(count / seconds / bare, 3)
    print(json.dumps(row), flush=True)

  def _sizes(self) -> dict[str, float]:
    """Bytes an example, and what planning and opening take."""
    shards = Path(self._index, 'shards')
    num_bytes = sum(file.stat().st_size for file in shards.iterdir())
    manifest = max(Path(self._index).glob('manifest-*.json'))
    started = time.perf_counter()
    manifest_lib.load(self._index)
    opened = time.perf_counter() - started
    request = ProjectionRequest(
      TaskReference(_TASK, {'path': str(self._data)}), self._basis, self._index
    )
    started = time.perf_counter()
    projection_job.prepare(request)
    return {
      'index_bytes_per_example': round(num_bytes / self.num_examples, 1),
      'manifest_bytes': manifest.stat().st_size,
      'open_seconds': round(opened, 3),
      'plan_seconds': round(time.perf_counter() - started, 3),
    }


def prediction_row(runs: Sequence[Run]) -> dict[str, Any]:
  """What the last size takes, by the others and by `estimate` of each."""
  *smaller, last = runs
  sizes = [run.num_examples for run in smaller]
  seconds = [run.project_seconds for run in smaller]
  # Errors are proportional.
  line = np.polyfit(sizes, seconds, 1, w=1 / np.array(seconds))
  size = last.num_examples
  return {
    'n': size,
    'what': 'project, predicted',
    'seconds': round(last.project_seconds, 1),
    'by_the_line_of_others': round(float(np.polyval(line, size)), 1),
    'by_estimate_of_each': [
      round(run.predicted_seconds[size], 1) for run in runs
    ],
  }


def manifest_row(directory: Path, num_ranges: int) -> dict[str, Any]:
  """Seconds and memory of a manifest of so many ranges, made of real ones."""
  [index] = list(directory.glob('*/index'))[:1]
  made = manifest_lib.load(str(index))
  shards = tuple(
    _as_if_of_file(shard, number)
    for number, shard in zip(
      range(num_ranges), itertools.cycle(made.shards), strict=False
    )
  )
  large = str(directory / f'manifest-of-{num_ranges}')
  started = time.perf_counter()
  manifest_lib.publish(large, made.provenance, shards)
  published = time.perf_counter() - started
  opened = benchmark_projection.in_own_process(open_manifest, large)
  return {
    'ranges': num_ranges,
    'examples': sum(x.range.num_examples for x in shards),
    'publish_seconds': round(published, 2),
    'manifest_bytes': Path(manifest_lib.path_of(large, 1)).stat().st_size,
    **opened,
  }


def _as_if_of_file(
  shard: index_format.Shard, number: int
) -> index_format.Shard:
  name = f'{number:08d}-{shard.range.source_shard}'
  return dataclasses.replace(
    shard, range=dataclasses.replace(shard.range, source_shard=name)
  )


def open_manifest(index: str) -> dict[str, Any]:
  before = psutil.Process().memory_info().rss
  started = time.perf_counter()
  opened = index_reader.Index(index)
  count = opened.num_examples
  seconds = time.perf_counter() - started
  after = psutil.Process().memory_info().rss
  return {
    'num_examples': count,
    'open_seconds': round(seconds, 2),
    'open_mib': round((after - before) / 2**20),
  }


def bare_rate(task: TaskReference, basis: str) -> float:
  """Examples/s of the projection of a batch that is in memory."""
  loaded = loaded_task.LoadedTask.load(task)
  record = stored_basis.load_record(basis)
  projector = checked_projector.make_projector(
    loaded,
    stored_basis.load(record),
    ProjectionOptions(),
    num_examples=4096,
  )
  size = projector.call_size
  batch = loaded.preprocess_batch(
    loaded.task.corpus.read_positions(range(size))
  )
  projector.project(batch.features)
  count, started = 0, time.perf_counter()
  while time.perf_counter() - started < _BARE_SECONDS:
    projector.project(batch.features)
    count += size
  return count / (time.perf_counter() - started)


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', type=Path, required=True, help='for all files')
  parser.add_argument('--examples', type=int, nargs='*', default=[100_000])
  parser.add_argument(
    '--num_workers', type=int, default=os.cpu_count() or 1, help='of project'
  )
  parser.add_argument('--ranges', type=int, help='of a manifest')
  flags = parser.parse_args(argv)
  runs = []
  for num_examples in flags.examples:
    run = Run(
      flags.dir.absolute(), num_examples, flags.num_workers, flags.examples
    )
    run.measure()
    runs.append(run)
  if len(runs) > 2:
    print(json.dumps(prediction_row(runs)))
  if flags.ranges:
    print(json.dumps(manifest_row(flags.dir.absolute(), flags.ranges)))


if __name__ == '__main__':
  main()
