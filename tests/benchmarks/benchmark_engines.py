"""One projection on every engine of this machine, against the local one.

Each engine makes an index of its own with the flags after --, which the one of
the local engine must equal byte for byte; the rate is that of the whole stage,
workers' start included, as a ratio to the local engine of the same run.

    python -m tests.benchmarks.benchmark_engines --out D -- \
      --task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W \
      --basis W/basis
"""

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys

import apache_beam
import jax

from launch.output import console as console_lib
from tests.conftest import ROOT
from tests.kit import engine_servers
from tests.pipeline.beam.test_engines import stored_bytes


@contextlib.contextmanager
def _local(*flags):
  yield engine_servers.Servers(list(flags), list)


ENGINES = {
  'local, 2 threads': lambda: _local(),
  'local, 2 processes': lambda: _local(
    '--', '--direct_running_mode=multi_processing'
  ),
  'dask, 2 processes': engine_servers.dask,
  'portable, 1 worker': engine_servers.portable,
  'prism, threads here': lambda: _local('--engine', 'prism'),
  'prism, worker pool': engine_servers.prism,
}


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
  parser.add_argument('--out', required=True, help='directory for the indexes')
  parser.add_argument('flags', nargs='+', help='of influence project')
  arguments = parser.parse_args()
  rows = []
  for number, (name, start) in enumerate(ENGINES.items()):
    index = os.path.join(arguments.out, f'index-{number}')
    with start() as servers:
      rate = _rate([*arguments.flags, '--index', index, *servers.flags])
    local = os.path.join(arguments.out, 'index-0')
    same = stored_bytes(index) == stored_bytes(local)
    rows.append((name, rate, rate / rows[0][1] if rows else 1.0, same))
  print(
    f'{platform.processor() or platform.machine()}, {os.cpu_count()} cores, '
    f'beam {apache_beam.__version__}, jax {jax.__version__}'
  )
  console_lib.Console().table(
    'engines',
    ['engine', 'examples/s', 'of local', 'same index'],
    [
      [name, f'{rate:.0f}', f'{ratio:.2f}', str(same)]
      for name, rate, ratio, same in rows
    ],
  )


def _rate(flags: list[str]) -> float:
  """Examples/s of a whole projection."""
  done = subprocess.run(
    [sys.executable, '-m', 'launch', 'project', '--json', *flags],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  )
  return json.loads(done.stdout)['examples_per_second']


if __name__ == '__main__':
  main()
