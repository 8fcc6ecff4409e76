"""Ends what would wait for ever, and shows progress meanwhile."""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading
import time
from typing import Any, cast

from influence_core import errors
from launch.output import console as console_lib

_INTERVAL_SECONDS = 1.0
# Part of the time that looking for progress may take: a listing of many files
# in an object store takes seconds, and is paid for.
_LOOKING_FRACTION = 0.02
# Interrupts the main thread. The signal of Ctrl-C would not do: what a script
# starts with & ignores it, and so do all processes that it starts.
_SIGNAL = signal.SIGUSR1
# A look that hangs must not keep a command from its end.
_LAST_LOOK_SECONDS = 5.0


class StalledError(errors.InputError):
  """Work does not go on; threads of it may be blocked for ever."""


@contextlib.contextmanager
def watch(
  look: Callable[[], None], find_stuck: Callable[[], str | None]
) -> Iterator[None]:
  """Looks after the work inside the `with` statement.

  Only in the main thread. Neither function can end the watch by an error, and
  no slow look delays it.

  Args:
    look: called for progress, the rarer the longer it takes.
    find_stuck: called every second; says what is stuck, or None. Then the work
      is interrupted.

  Raises:
    StalledError: Something was stuck.
  """
  stop = threading.Event()
  stuck: list[str] = []

  look = _tolerated('looking for progress', look)
  find_stuck = _tolerated('looking for stuck workers', find_stuck)

  main = cast(int, threading.main_thread().ident)  # It has been started.

  def show_progress():
    seconds = 0.0
    while not stop.wait(pause_after(seconds)):
      started = time.monotonic()
      look()
      seconds = time.monotonic() - started

  def keep_watch():
    while not stop.wait(_INTERVAL_SECONDS):
      if reason := find_stuck():
        stuck.append(reason)
        signal.pthread_kill(main, _SIGNAL)
        return

  looker = threading.Thread(target=show_progress, daemon=True)
  watcher = threading.Thread(target=keep_watch, daemon=True)
  before = signal.signal(_SIGNAL, signal.default_int_handler)
  looker.start()
  watcher.start()
  try:
    yield
  except KeyboardInterrupt:
    if not stuck:
      raise
    raise StalledError(
      f'the work is stuck: {stuck[0]}; run the same command again, what is '
      'done is kept (fewer workers need less memory)'
    ) from None
  finally:
    stop.set()
    watcher.join()
    signal.signal(_SIGNAL, before)
    looker.join(_LAST_LOOK_SECONDS)


def pause_after(look_seconds: float) -> float:
  """Seconds from a look that took `look_seconds` to the next one."""
  return max(_INTERVAL_SECONDS, look_seconds / _LOOKING_FRACTION)


def _tolerated(what: str, function: Callable[[], Any]) -> Callable[[], Any]:
  """The function, whose errors are told once and end nothing."""
  is_told = False

  def call() -> Any:
    nonlocal is_told
    try:
      return function()
    except Exception as error:
      if not is_told:
        line = f'{type(error).__name__}: {error}'
        console_lib.logger.warning('%s failed (%s); work goes on', what, line)
      is_told = True
      return None

  return call
