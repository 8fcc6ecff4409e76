"""What a terminal shows before there is anything to say."""

import io
import logging
import time

import rich.console

from launch.output import console as console_lib


def on_terminal() -> tuple[console_lib.Console, io.StringIO]:
  """A console whose messages go to a terminal, and all that was written."""
  console, screen = console_lib.Console(), io.StringIO()
  console._err = rich.console.Console(file=screen, force_terminal=True)
  return console, screen


def test_something_moves_until_there_is_more_to_say():
  console, screen = on_terminal()
  console.wait('fit-basis: loading')
  time.sleep(0.3)
  moving = screen.getvalue()
  assert moving.count('fit-basis: loading') > 1
  console.tell('parameters are replicated')
  ended = screen.getvalue()
  time.sleep(0.3)
  assert screen.getvalue() == ended
  with console.stage('fit-basis', 'iterations') as progress:
    progress(1, 2)
  console.end_wait()


def test_logs_show_nothing_of_it(influence, tmp_path):
  outcome = influence('describe', '--basis', tmp_path)
  assert outcome.error_line.startswith('influence: error: no basis at')


def test_bar_and_lines_show_more_than_what_is_done(monkeypatch, caplog):
  console, screen = on_terminal()
  with console.stage('project') as progress:
    progress(1, 2, device_share=0.93, rejected=4)
    time.sleep(0.3)
  assert 'device share 0.93  rejected 4' in screen.getvalue()
  caplog.set_level(logging.INFO, 'influence')
  monkeypatch.setattr(console_lib, '_LOG_INTERVAL_SECONDS', 0)
  with console_lib.Console().stage('project') as progress:
    progress(1, 2, rejected=4)
    progress(2, 2, rejected=5)
  first, _, done = [x.getMessage() for x in caplog.records][-3:]
  assert 'done=1 total=2 unit=examples' in first
  assert first.endswith('rejected=4')
  assert done.endswith('rejected=5')


def test_the_pace_is_that_of_this_run(monkeypatch, caplog):
  """Six of eight were there before; two minutes each are left for two."""
  caplog.set_level(logging.INFO, 'influence')
  clock = iter([0, 0, 10, 130, 250, 250])
  monkeypatch.setattr(console_lib.time, 'monotonic', lambda: next(clock))
  with console_lib.Console().stage('fit-basis', 'blocks') as progress:
    progress(6, 8)
    progress(7, 8)
    progress(8, 8)
  first, second, _ = [x.getMessage() for x in caplog.records][-3:]
  assert first.endswith(
    'done=7 total=8 unit=blocks rate=0.00833 eta_seconds=120'
  )
  assert second.endswith('eta_seconds=0')
