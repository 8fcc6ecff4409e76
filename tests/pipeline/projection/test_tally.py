"""What is told of a projection that runs: busy devices, rejected examples."""

import concurrent.futures
import contextlib
import json
import time

import pytest

from pipeline.projection import tally


@pytest.fixture
def clock(monkeypatch):
  """A clock that stands until it is set."""
  now = [100.0]
  monkeypatch.setattr(time, 'monotonic', lambda: now[0])
  return now


def test_time_on_the_device_is_counted_once(clock):
  """Two threads overlap by 2 s; then the device waits for 3 s."""
  counts = tally.Tally()
  assert counts.totals() == tally.Totals()
  with counts.on_device():
    clock[0] += 1
    with counts.on_device():
      clock[0] += 2
      assert counts.totals().device_seconds == 3
    clock[0] += 1
  clock[0] += 3
  with counts.on_device():
    clock[0] += 1
  assert counts.totals() == tally.Totals(8, 5)


def test_failed_batch_leaves_the_device_free(clock):
  counts = tally.Tally()
  with contextlib.suppress(ZeroDivisionError), counts.on_device():
    clock[0] += 1
    raise ZeroDivisionError
  clock[0] += 1
  assert counts.totals() == tally.Totals(2, 1)


def test_processes_are_summed(tmp_path):
  assert tally.read(str(tmp_path)) == tally.Totals()
  for process, totals in ((1, [4.0, 4.0, 0]), (2, [6.0, 1.0, 3])):
    file = tmp_path / f'tally-{process}.json'
    names = ('seconds', 'device_seconds', 'num_rejected')
    file.write_text(json.dumps(dict(zip(names, totals, strict=True))))
  found = tally.read(str(tmp_path))
  assert found.facts() == {'device_share': 0.5, 'rejected': 3}


def test_threads_keep_whole_totals(tmp_path):
  counts = tally.Tally(str(tmp_path))

  def work(_):
    for _ in range(50):
      with counts.on_device():
        counts.reject(1)
      counts.keep()
      assert tally.read(str(tmp_path)).num_rejected

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    list(pool.map(work, range(4)))
  counts.keep()
  assert tally.read(str(tmp_path)).num_rejected == 200
  assert [x.suffix for x in tmp_path.iterdir()] == ['.json']
