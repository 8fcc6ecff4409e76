"""Killed at random, again and again: the index ends as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from pipeline.index import format as index_format, manifest as manifest_lib
from tests.conftest import ROOT
from tests.kit import linear_task
from tests.pipeline.beam.test_project_corpus import assert_same_index, flags


@pytest.mark.parametrize(
  'num_kills',
  [
    pytest.param(5, marks=pytest.mark.slow),
    pytest.param(100, marks=pytest.mark.scale),
  ],
)
def test_index_is_the_same(
  influence, task_flags, basis, index, tmp_path, num_kills
):
  command = flags(task_flags, basis, tmp_path, '--range_size', 2)
  command = [sys.executable, '-m', 'launch', *map(str, command)]
  # Kills come while it starts, works or publishes, by what a whole run takes.
  started = time.monotonic()
  whole = flags(task_flags, basis, tmp_path / 'whole', '--range_size', 2)
  whole = [sys.executable, '-m', 'launch', *map(str, whole)]
  subprocess.run(whole, cwd=ROOT, capture_output=True, check=True)
  seconds = time.monotonic() - started
  chooser = random.Random(0)
  committed, num_useful = 0, 0
  for _ in range(num_kills):
    with subprocess.Popen(
      command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
      time.sleep(chooser.uniform(0.5, 1) * seconds)
      process.send_signal(signal.SIGKILL)
    before, committed = committed, num_committed(tmp_path)
    num_useful += committed > before
    for generation in manifest_lib.generations(str(tmp_path)):
      manifest = manifest_lib.load(str(tmp_path), generation)
      assert manifest.num_examples == linear_task.NUM_TRAIN
    if manifest_lib.generations(str(tmp_path)):
      # Begin again, so that every kill finds something to do.
      for directory in ('shards', 'plans'):
        for name in os.listdir(tmp_path / directory):
          os.unlink(tmp_path / directory / name)
      os.unlink(manifest_lib.path_of(str(tmp_path), 1))
      committed = 0
  assert num_useful
  assert influence(*command[3:]).status == 0
  assert_same_index(index, tmp_path)
  assert manifest_lib.generations(str(tmp_path)) == [1]
  assert influence('verify', '--index', tmp_path).status == 0


def num_committed(path):
  directory = index_format.shards_directory(str(path))
  if not os.path.exists(directory):
    return 0
  return sum(
    name.startswith('rows-') and '.tmp-' not in name
    for name in os.listdir(directory)
  )
