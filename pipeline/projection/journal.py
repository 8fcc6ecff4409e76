"""Which ranges are being worked at on this machine, and since when.

Beam's local runner waits for ever when a worker process is killed, and nothing
notices when a device hangs. So workers on this machine keep a file for what
they are at, and touch it after every batch, with the time of a clock that is
never set. It is for watching alone: what is done is known by the shards.
"""

from collections.abc import Callable, Iterator
import contextlib
import os
import pathlib
import time

_SUFFIX = '.work'


@contextlib.contextmanager
def working_at(
  directory: str | None, what: str
) -> Iterator[Callable[[], None]]:
  """Notes that this thread is at something.

  Args:
    directory: of the journal; None for none.
    what: such as the stem of a range.

  Yields:
    A function to call after each step.
  """
  if directory is None:
    yield lambda: None
    return
  file = pathlib.Path(directory, what + _SUFFIX)
  file.write_text(str(os.getpid()))
  _touch(file)
  try:
    yield lambda: _touch(file)
  finally:
    file.unlink(missing_ok=True)


def find_stuck(directory: str, stall_seconds: float) -> str | None:
  """What does not go on, and why; None where all is well.

  Args:
    directory: of the journal.
    stall_seconds: the longest that one step may take.
  """
  for file in sorted(pathlib.Path(directory).glob(f'*{_SUFFIX}')):
    try:
      process = int(file.read_text() or os.getpid())
      touched = file.stat().st_mtime_ns
    except FileNotFoundError:
      continue  # Done in this moment.
    idle_seconds = (time.monotonic_ns() - touched) / 1e9
    if not _is_alive(process):
      return f'its worker process {process} was killed at {file.stem}'
    if idle_seconds > stall_seconds:
      return f'no batch of {file.stem} was finished for {idle_seconds:.0f} s'
  return None


def _touch(file: pathlib.Path) -> None:
  now = time.monotonic_ns()
  os.utime(file, ns=(now, now))


def _is_alive(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except PermissionError:
    pass
  return True
