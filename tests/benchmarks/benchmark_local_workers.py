"""Threads or processes for projection on one machine?

    python -m tests.benchmarks.benchmark_local_workers --basis B \
        --task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W

Runs `influence project` with each kind and number of workers in turn, several
rounds interleaved, each into an index of its own, and prints the median
examples/s of the whole stage, the part of the time that the device worked, and
the ratio to the bare kernel of the same rounds, which projects one batch in
memory again and again.
"""

import argparse
import collections
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from typing import Any

import jax

from pipeline.tasks.reference import TaskReference
from tests.benchmarks import benchmark_projection
from tests.benchmarks.benchmark_scale import bare_rate

KINDS = {
  '1 thread': ['--direct_num_workers=1'],
  '2 threads': ['--direct_num_workers=2'],
  '2 processes': [
    '--direct_num_workers=2',
    '--direct_running_mode=multi_processing',
  ],
}


def run(arguments, beam_arguments) -> dict[str, Any]:
  """What `project` says of itself."""
  with tempfile.TemporaryDirectory() as index:
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'launch', 'project', '--json'),
        *('--index', index, *arguments, '--', *beam_arguments),
      ],
      check=True,
      stdout=subprocess.PIPE,
    )
  return json.loads(done.stdout)


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--task', required=True, help='MODULE:FUNCTION')
  parser.add_argument('--task_arg', action='append', default=[])
  parser.add_argument('--basis', required=True)
  parser.add_argument('--range_size', default='4096')
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  arguments = ['--task', flags.task, '--basis', flags.basis]
  for argument in flags.task_arg:
    arguments += ['--task_arg', argument]
  reference = TaskReference(
    flags.task, dict(argument.split('=', 1) for argument in flags.task_arg)
  )
  bare, runs = [], collections.defaultdict(list)
  for _ in range(flags.rounds):
    bare.append(
      benchmark_projection.in_own_process(bare_rate, reference, flags.basis)
    )
    for kind, options in KINDS.items():
      size = ['--range_size', flags.range_size]
      runs[kind].append(run([*arguments, *size], options))
  baseline = statistics.median(bare)
  print(f'{platform.processor() or platform.machine()}, jax {jax.__version__}')
  print(f'bare kernel  {baseline:8.1f} examples/s')
  for kind, found in runs.items():
    rate, share = (
      statistics.median(x[name] for x in found)
      for name in ('examples_per_second', 'device_share')
    )
    print(
      f'{kind:<12} {rate:8.1f} examples/s  ratio {rate / baseline:.2f}  '
      f'device share {share:.2f}'
    )


if __name__ == '__main__':
  main()
