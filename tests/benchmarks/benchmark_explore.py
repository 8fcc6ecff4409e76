"""How long the explorer takes to be there, and to answer, on many rows.

    python -m tests.benchmarks.benchmark_explore --dir D --examples 1000000

Makes a corpus of random points in D, fits and projects it once (a network of
one hidden layer, 64 coordinates for each of its two layers), and serves it as
`influence explore` does, in a process of its own. Printed are seconds from the
start of the process to the first page, seconds of the first question, which
compiles, and of later ones, each as a ratio to the bare product of a query with
rows in memory, and the largest memory of the process.
"""

import argparse
import json
import os
from pathlib import Path
import subprocess
import sys
import time
import urllib.request

import numpy as np
import psutil

from launch import cli
from pipeline import FileCorpus, Task, open_index
from tests.benchmarks import scale_task

_WIDTH, _HIDDEN = 32, 48


def make_task(path: str) -> Task:
  """A regression by a small network on the points of a file."""
  return scale_task.make_regression(
    FileCorpus(path),
    _WIDTH,
    _HIDDEN,
    row_columns=lambda raw: {'positive': bool(raw['y'] > 0)},
  )


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('--dir', required=True, help='where the index is made')
  parser.add_argument('--examples', type=int, default=1_000_000)
  parser.add_argument('--rounds', type=int, default=5)
  flags = parser.parse_args()
  place = Path(flags.dir).absolute()
  index = _prepare(place, flags.examples)
  bare = _bare_seconds(index, flags.rounds)
  started = time.monotonic()
  process = subprocess.Popen(
    [sys.executable, '-m', 'launch', 'explore', '--index', index],
    stdout=subprocess.PIPE,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
    text=True,
  )
  assert process.stdout is not None
  address = process.stdout.readline().split()[1]
  base, _, token = address.partition('?token=')
  port = base.rstrip('/').rpartition(':')[2]
  cookie = {'Cookie': f'influence_{port}={token}'}

  def fetch(path, content=None):
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(base + path, data, cookie)
    with urllib.request.urlopen(request) as response:
      return response.read()

  def ask(number):
    begun = time.monotonic()
    question = {
      **{'source': 'ids', 'ids': f'train.npz__{number}', 'split': ''},
      **{'fields': {}, 'file': {}, 'where': '', 'layers': '', 'damping': ''},
      **{'normalization': 'none', 'k': 8, 'tokens': False},
    }
    job = json.loads(fetch('ask', question))['job']
    while (found := json.loads(fetch(f'jobs/{job}')))['state'] != 'done':
      assert found['state'] != 'failed', found
      time.sleep(0.01)
    return time.monotonic() - begun

  try:
    assert b'What made the model' in fetch('')
    print(f'page: {time.monotonic() - started:.2f} s after the start')
    first = ask(0)
    print(f'first question: {first:.2f} s')
    later = float(np.median([ask(x + 1) for x in range(flags.rounds)]))
    print(f'later questions: {later:.2f} s, {later / bare:.1f} of {bare:.3f} s')
    memory = psutil.Process(process.pid).memory_full_info()
    print(
      f'memory: {memory.uss / 1e6:,.0f} MB, and {memory.rss / 1e6:,.0f} MB '
      'with what is shared'
    )
  finally:
    process.terminate()


def _prepare(place: Path, num_examples: int) -> str:
  """The path of an index of so many examples, made if it is not there."""
  path = place / f'{num_examples}' / 'train.npz'
  index = str(path.parent / 'index')
  if Path(index, 'manifest-000001.json').exists():
    return index
  path.parent.mkdir(parents=True, exist_ok=True)
  generator = np.random.default_rng(1)
  x = generator.normal(size=(num_examples, _WIDTH)).astype(np.float32)
  y = generator.normal(size=num_examples).astype(np.float32)
  np.savez(path, x=x, y=y)
  task = [
    *('--task', 'tests.benchmarks.benchmark_explore:make_task'),
    *('--task_arg', f'path={path}'),
  ]
  basis = str(path.parent / 'basis')
  for command in (
    ['fit-basis', *task, '--out', basis, '--coordinates_per_layer', '64'],
    ['project', *task, '--basis', basis, '--index', index],
  ):
    assert cli.main([*command, '--json']) == 0
  return index


def _bare_seconds(index: str, rounds: int) -> float:
  """Of the product of a query with all rows in memory."""
  rows = open_index(index).projections()
  query = np.ones(rows.shape[1], np.float32)
  seconds = []
  for _ in range(rounds):
    begun = time.monotonic()
    rows @ query
    seconds.append(time.monotonic() - begun)
  return float(np.median(seconds))


if __name__ == '__main__':
  main()
