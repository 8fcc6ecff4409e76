"""What a large model takes from nothing to an index, beside its own gradient.

    python -m tests.benchmarks.benchmark_full_size --dir D --task T \
        --task_arg data_dir=DATA --task_arg 'split=train[:256]'

Fits the subspaces of the task's layers and projects its corpus on them, by the
commands themselves and each in a process of its own, compilation included; and
times the plain gradient of a batch, forward and backward without update, in
another. Printed are seconds an example and the largest memory that each process
ever had; `doctor` gives the rate of a projection that is compiled, which
`projection_rate` states relative to that of gradients.
"""

import argparse
from collections.abc import Iterator
import contextlib
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import threading
import time
from typing import Any

import jax
import numpy as np
import psutil

from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference
from tests.benchmarks import benchmark_projection

_LOOK_SECONDS = 0.05


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', required=True, help='for basis and index')
  parser.add_argument('--task', required=True, help='MODULE:FUNCTION')
  parser.add_argument('--task_arg', action='append', default=[])
  parser.add_argument(
    '--fit', default='--sample_size 64 --num_draws 1', help='flags of fit-basis'
  )
  parser.add_argument('--project', default='', help='flags of project')
  parser.add_argument('--batch_size', type=int, default=16, help='of gradients')
  parser.add_argument(
    '--measured', type=int, default=8, help='examples to time when compiled'
  )
  parser.add_argument('--query_split', default='train[:1]', help='of topk')
  parser.add_argument('--rounds', type=int, default=3)
  flags = parser.parse_args()
  task = ['--task', flags.task]
  for argument in flags.task_arg:
    task += ['--task_arg', argument]
  basis, index = (os.path.join(flags.dir, name) for name in ('basis', 'index'))
  fit = ['fit-basis', *task, '--out', basis, '--method', 'kronecker']
  fitted = run_command(fit + shlex.split(flags.fit))
  report = fitted['result']['report']
  show(
    'fit',
    fitted,
    report['seconds'],
    report['sample_size'],
    projection_dim=sum(layer['count'] for layer in report['layers']),
  )
  project = ['project', *task, '--basis', basis, '--index', index]
  projected = run_command(project + shlex.split(flags.project))
  num_examples = projected['result']['num_examples']
  show('project', projected, projected['seconds'], num_examples)
  measured = run_command(
    ['doctor', *task, '--basis', basis, '--num_examples', str(flags.measured)]
  )
  rate = measured['result']['examples_per_second']
  show('project, compiled', measured, flags.measured / rate, flags.measured)
  asked = ['topk', '--index', index, '--query_split', flags.query_split]
  answered = run_command(asked)
  show('query', answered, answered['seconds'], 1)
  reference = TaskReference(
    flags.task, dict(argument.split('=', 1) for argument in flags.task_arg)
  )
  plain = benchmark_projection.in_own_process(
    gradient_seconds, reference, flags.batch_size, flags.rounds
  )
  per_gradient = plain['seconds'] / flags.batch_size
  ratio = {'projection_rate': round(rate * per_gradient, 3)}
  show('gradient', plain, plain['seconds'], flags.batch_size, **ratio)


def run_command(argv: list[str]) -> dict[str, Any]:
  """The result of a command, with the largest memory of its process."""
  command = [sys.executable, '-m', 'launch', *argv, '--json']
  start = time.perf_counter()
  with (
    subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process,
    _largest_private(process.pid) as private,
  ):
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
  if process.returncode:
    raise SystemExit(f'{shlex.join(command)} ended with {process.returncode}')
  return {
    'result': json.loads(printed),
    'seconds': time.perf_counter() - start,
    'peak_bytes': usage.ru_maxrss * 1024,
    'peak_private_bytes': max(private),
  }


@contextlib.contextmanager
def _largest_private(process: int) -> Iterator[list[int]]:
  """Memory of a process without mapped files, looked at now and then."""
  found, stop = [0], threading.Event()

  def watch():
    with contextlib.suppress(psutil.Error):
      while not stop.wait(_LOOK_SECONDS):
        memory = psutil.Process(process).memory_info()
        found.append(memory.rss - getattr(memory, 'shared', 0))

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    yield found
  finally:
    stop.set()
    thread.join()


def gradient_seconds(
  task: TaskReference, batch_size: int, rounds: int
) -> dict[str, Any]:
  """Median seconds of the gradient of the mean loss of a batch."""
  loaded = loaded_task.LoadedTask.load(task)
  features = jax.tree.map(
    lambda leaf: np.resize(leaf, (batch_size, *leaf.shape[1:])),
    loaded.checked_features,
  )

  def loss(params):
    return loaded.task.per_example_loss(params, features).mean()

  gradient = jax.jit(jax.grad(loss))
  params = jax.device_put(loaded.params)
  seconds = []
  for _ in range(rounds + 1):
    start = time.perf_counter()
    jax.block_until_ready(gradient(params))
    seconds.append(time.perf_counter() - start)
  return {
    'seconds': statistics.median(seconds[1:]),
    'peak_bytes': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  }


def show(
  what: str,
  measured: dict[str, Any],
  seconds: float,
  num_examples: int,
  **more: Any,
) -> None:
  row = {
    'what': what,
    'num_examples': num_examples,
    'seconds': round(seconds, 2),
    'seconds_per_example': round(seconds / num_examples, 4),
    'peak_gib': round(measured['peak_bytes'] / 2**30, 3),
    **more,
  }
  print(json.dumps(row), flush=True)


if __name__ == '__main__':
  main()
