"""Ends what would wait for ever, and shows progress meanwhile."""

from collections.abc import Callable, Iterator
import contextlib
import signal
import threading

from influence_core import errors

_INTERVAL_SECONDS = 1.0


class StalledError(errors.InputError):
  """Work does not go on; threads of it may be blocked for ever."""


@contextlib.contextmanager
def watch(
  look: Callable[[], None], find_stuck: Callable[[], str | None]
) -> Iterator[None]:
  """Looks after the work inside the `with` statement, every second.

  Args:
    look: called for progress.
    find_stuck: says what is stuck, or None. Then the main thread, in which the
      work must be, is interrupted.

  Raises:
    StalledError: Something was stuck.
  """
  stop = threading.Event()
  stuck: list[str] = []

  def loop():
    while not stop.wait(_INTERVAL_SECONDS):
      look()
      if reason := find_stuck():
        stuck.append(reason)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        return

  thread = threading.Thread(target=loop, daemon=True)
  thread.start()
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
    thread.join()
