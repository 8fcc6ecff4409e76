"""Threads or processes for projection on one machine?

    python -m tests.benchmarks.benchmark_local_workers --workdir W --basis B

Runs `influence project` with each kind and number of workers in turn, several
rounds interleaved, each into an index of its own, and prints the median
examples/s of the whole stage and its ratio to one thread in the same run.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile

import jax

KINDS = {
  '1 thread': ['--direct_num_workers=1'],
  '2 threads': ['--direct_num_workers=2'],
  '2 processes': [
    '--direct_num_workers=2',
    '--direct_running_mode=multi_processing',
  ],
}


def examples_per_second(arguments, beam_arguments) -> float:
  with tempfile.TemporaryDirectory() as index:
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'launch', 'project', '--json'),
        *('--index', index, *arguments, '--', *beam_arguments),
      ],
      check=True,
      stdout=subprocess.PIPE,
    )
  return json.loads(done.stdout)['examples_per_second']


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument('--workdir', required=True)
  parser.add_argument('--basis', required=True)
  parser.add_argument('--range_size', default='64')
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  arguments = [
    *('--task', 'launch.example_tasks.image_classifier:make_task'),
    *('--task_arg', f'workdir={flags.workdir}', '--basis', flags.basis),
    *('--range_size', flags.range_size),
  ]
  rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
  for _ in range(flags.rounds):
    for kind, options in KINDS.items():
      rates[kind].append(examples_per_second(arguments, options))
  baseline = statistics.median(rates['1 thread'])
  print(f'{platform.processor() or platform.machine()}, jax {jax.__version__}')
  for kind, values in rates.items():
    median = statistics.median(values)
    print(f'{kind:<12} {median:8.1f} examples/s  ratio {median / baseline:.2f}')


if __name__ == '__main__':
  main()
