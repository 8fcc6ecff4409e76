"""What a terminal shows before there is anything to say."""

import io
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
