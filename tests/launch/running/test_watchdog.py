"""The watch goes on whatever happens to what it calls."""

import signal
import threading

import pytest

from launch.running import watchdog


@pytest.fixture(autouse=True)
def fixture_quick(monkeypatch):
  monkeypatch.setattr(watchdog, '_INTERVAL_SECONDS', 0.001)


def fails():
  raise OSError('no answer')


def stuck_at(number):
  """Says that something is stuck when it is asked for the n-th time."""
  asked = []

  def find_stuck():
    asked.append(None)
    return 'the reason' if len(asked) == number else None

  return find_stuck


def wait_to_be_ended(look, find_stuck):
  with watchdog.watch(look, find_stuck):
    threading.Event().wait(60)
    pytest.fail('nobody has watched')


def test_what_is_stuck_is_ended_though_looking_fails():
  with pytest.raises(watchdog.StalledError, match='stuck: the reason; run the'):
    wait_to_be_ended(fails, stuck_at(30))


def test_what_is_stuck_is_ended_though_looking_hangs(monkeypatch):
  monkeypatch.setattr(watchdog, '_LAST_LOOK_SECONDS', 0.001)
  hanging = threading.Event()
  with pytest.raises(watchdog.StalledError):
    wait_to_be_ended(hanging.wait, stuck_at(3))
  hanging.set()


def test_what_is_stuck_is_ended_in_the_background():
  """What a script starts with & ignores Ctrl-C from the beginning."""
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    with pytest.raises(watchdog.StalledError):
      wait_to_be_ended(lambda: None, stuck_at(3))
  finally:
    signal.signal(signal.SIGINT, before)


def test_watch_that_fails_is_told_once_and_goes_on(caplog):
  stuck = stuck_at(3)
  failed = []

  def find_stuck():
    if len(failed) < 5:
      failed.append(None)
      fails()
    return stuck()

  with pytest.raises(watchdog.StalledError):
    wait_to_be_ended(lambda: None, find_stuck)
  (line,) = [x.getMessage() for x in caplog.records]
  assert line == (
    'looking for stuck workers failed (OSError: no answer); work goes on'
  )


def test_progress_is_looked_for_all_the_time():
  looks = threading.Semaphore(0)
  with watchdog.watch(looks.release, lambda: None):
    for _ in range(3):
      assert looks.acquire(timeout=60)


def test_looking_takes_little_of_the_time(monkeypatch):
  monkeypatch.setattr(watchdog, '_INTERVAL_SECONDS', 1.0)
  assert watchdog.pause_after(0.001) == 1.0
  for seconds in (0.1, 1.0, 30.0):
    assert seconds <= 0.03 * watchdog.pause_after(seconds)


def test_interruption_by_a_person_stays_one():
  with (
    pytest.raises(KeyboardInterrupt),
    watchdog.watch(lambda: None, lambda: None),
  ):
    raise KeyboardInterrupt
