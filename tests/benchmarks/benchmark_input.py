"""Examples/s of reading and preprocessing, by processes ahead of a device.

    python -m tests.benchmarks.benchmark_input --dir D --data_dir DATA

The device is a null kernel, which takes a batch and does nothing: what is
measured is the most that any device could be given. Corpora are MNIST (PNG in
ArrayRecord), JPEGs of 224 pixels, texts that are tokenized, and arrays that are
read by column. The rate with 0 processes is that of a worker that reads for
itself; all others are stated relative to it, in the same run. Also printed are
the cores in use: where they are all busy, more processes give no more.
"""

import argparse
from collections.abc import Iterator
import json
import os
from pathlib import Path
import time

import psutil

from pipeline.index import format as index_format
from pipeline.projection import input_pool, input_processes
from pipeline.tasks import example_batches, loaded_task
from pipeline.tasks.reference import TaskReference
from tests.benchmarks import input_tasks, scale_task

_BATCH_SIZE = 256
_RANGE_SIZE = 4096


def references(
  directory: Path, data_dir: str | None, num_examples: int
) -> Iterator[TaskReference]:
  """Tasks, with their files written where they are missing."""
  module = input_tasks.__name__
  if data_dir:
    split = f'train[:{4 * num_examples}]'
    yield TaskReference(
      f'{module}:digits', {'data_dir': data_dir, 'split': split}
    )
  photographs = directory / f'photographs-{num_examples}'
  if not photographs.exists():
    input_tasks.write_photographs(photographs, num_examples)
  yield TaskReference(f'{module}:photographs', {'path': str(photographs)})
  texts = directory / f'texts-{4 * num_examples}.jsonl'
  if not texts.exists():
    input_tasks.write_texts(texts, 4 * num_examples)
  yield TaskReference(f'{module}:texts', {'path': str(texts)})
  arrays = directory / f'arrays-{256 * num_examples}'
  if not arrays.exists():
    scale_task.write(arrays, 256 * num_examples, num_files=10)
  yield TaskReference(f'{scale_task.__name__}:make_task', {'path': str(arrays)})


def ranges_of(
  loaded: loaded_task.LoadedTask,
) -> list[index_format.ExampleRange]:
  return [
    index_format.ExampleRange(
      shard.name, start, min(start + _RANGE_SIZE, shard.stop), ''
    )
    for shard in loaded.task.corpus.source_shards()
    for start in range(shard.start, shard.stop, _RANGE_SIZE)
  ]


def read(
  loaded: loaded_task.LoadedTask,
  ahead: input_processes.InputProcesses | None,
  ranges: list[index_format.ExampleRange],
) -> int:
  """Examples that a null kernel was given."""
  count = 0
  for one in ranges:
    if ahead:
      batches = ahead.batches(one, _BATCH_SIZE)
    else:
      batches = _read_here(loaded, one)
    for batch in batches:
      count += len(batch.ids)
  return count


def _read_here(
  loaded: loaded_task.LoadedTask, one: index_format.ExampleRange
) -> Iterator[example_batches.ExampleBatch]:
  return example_batches.read_range(loaded.task, loaded.form, one, _BATCH_SIZE)


def cpu_seconds() -> float:
  """Of this process and its children that run."""
  own = psutil.Process()
  times = [x.cpu_times() for x in (own, *own.children(recursive=True))]
  return sum(x.user + x.system for x in times)


def main(argv: list[str] | None = None) -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', type=Path, required=True, help='for corpora')
  parser.add_argument('--data_dir', help='of TFDS with mnist; default: without')
  parser.add_argument('--num_examples', type=int, default=4096, help='JPEGs')
  parser.add_argument(
    '--num_processes', type=int, nargs='+', default=[1, 2, os.cpu_count() or 1]
  )
  flags = parser.parse_args(argv)
  for reference in references(flags.dir, flags.data_dir, flags.num_examples):
    loaded = loaded_task.LoadedTask.unchecked(reference)
    ranges = ranges_of(loaded)
    alone = None
    for number in dict.fromkeys([0, *flags.num_processes]):
      source = input_pool.Source(reference, loaded.form)
      ahead = input_processes.InputProcesses(source, number) if number else None
      read(loaded, ahead, ranges[:1])  # The task is loaded, files are cached.
      started, cpu = time.perf_counter(), cpu_seconds()
      count = read(loaded, ahead, ranges)
      seconds = time.perf_counter() - started
      rate = count / seconds
      alone = alone or rate
      row = {
        'corpus': loaded.task.name,
        'processes': number,
        'examples_per_second': round(rate),
        'ratio': round(rate / alone, 2),
        'cores': round((cpu_seconds() - cpu) / seconds, 2),
      }
      print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
