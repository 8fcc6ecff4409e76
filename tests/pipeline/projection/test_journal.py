"""Workers that do not go on are found, whatever happens to the time of day."""

import subprocess
import sys
import time

import pytest

from pipeline.projection import journal


def test_what_takes_too_long_is_stuck(tmp_path):
  with journal.working_at(str(tmp_path), 'range') as step:
    time.sleep(0.05)
    assert 'no batch of range' in str(journal.find_stuck(str(tmp_path), 0.04))
    step()
    assert journal.find_stuck(str(tmp_path), 60.0) is None
  assert journal.find_stuck(str(tmp_path), 0.0) is None


@pytest.mark.parametrize('seconds', [-1e6, 1e6])
def test_clock_that_is_set_stops_nothing(tmp_path, monkeypatch, seconds):
  real_time = time.time
  with journal.working_at(str(tmp_path), 'range') as step:
    monkeypatch.setattr(time, 'time', lambda: real_time() + seconds)
    assert journal.find_stuck(str(tmp_path), 60.0) is None
    step()
    assert journal.find_stuck(str(tmp_path), 60.0) is None


def test_other_processes_have_the_same_clock(tmp_path):
  """The one that watches is not the one that works."""
  program = (
    'import sys\n'
    'from pipeline.projection import journal\n'
    'with journal.working_at(sys.argv[1], "range"):\n'
    '  print(flush=True)\n'
    '  sys.stdin.read()\n'
  )
  with subprocess.Popen(
    [sys.executable, '-c', program, str(tmp_path)],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
  ) as process:
    process.stdout.readline()
    assert journal.find_stuck(str(tmp_path), 60.0) is None
    process.kill()
    process.wait()
  found = journal.find_stuck(str(tmp_path), 60.0)
  assert f'worker process {process.pid} was killed at range' in str(found)
