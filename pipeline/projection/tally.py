"""How busy the devices of a projection are, and what it rejected so far.

For people who watch: a device that waits is fed too slowly, and examples that
are rejected are better noticed after a minute than at the end. What an index
holds is said by its manifest.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import threading
import time

_FILE = 'tally-{process}.json'
# Batches of a millisecond are not worth a file each.
_KEPT_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Totals:
  """What processes have done so far.

  Attributes:
    seconds: since each began its first batch, summed over processes.
    device_seconds: of them, with a batch on its devices.
    num_rejected: examples that are left out.
  """

  seconds: float = 0.0
  device_seconds: float = 0.0
  num_rejected: int = 0

  def __add__(self, other: 'Totals') -> 'Totals':
    return Totals(
      self.seconds + other.seconds,
      self.device_seconds + other.device_seconds,
      self.num_rejected + other.num_rejected,
    )

  def facts(self) -> dict[str, float]:
    """For a line of progress: the share of time that devices work."""
    if not self.seconds:
      return {}
    share = round(self.device_seconds / self.seconds, 3)
    return {'device_share': share, 'rejected': self.num_rejected}


class Tally:
  """Counts for one process, whose threads may share its devices."""

  def __init__(self, directory: str | None = None):
    """Begins with nothing.

    Args:
      directory: to keep totals in for `read`; None to keep none.
    """
    self._file = (
      pathlib.Path(directory, _FILE.format(process=os.getpid()))
      if directory
      else None
    )
    self._lock = threading.Lock()
    self._began: float | None = None
    self._num_on_device = 0
    self._busy_since = 0.0
    self._device_seconds = 0.0
    self._num_rejected = 0
    self._keeping = threading.Lock()
    self._kept: tuple[float, int] = (-math.inf, 0)

  @contextlib.contextmanager
  def on_device(self) -> Iterator[None]:
    """Counts the time of the `with` statement, once where threads overlap."""
    with self._lock:
      now = time.monotonic()
      self._began = self._began or now
      if not self._num_on_device:
        self._busy_since = now
      self._num_on_device += 1
    try:
      yield
    finally:
      with self._lock:
        self._num_on_device -= 1
        if not self._num_on_device:
          self._device_seconds += time.monotonic() - self._busy_since

  def reject(self, num_examples: int) -> None:
    """Counts examples that are left out."""
    with self._lock:
      self._num_rejected += num_examples

  def totals(self) -> Totals:
    """What was counted so far."""
    with self._lock:
      if self._began is None:
        return Totals(num_rejected=self._num_rejected)
      now = time.monotonic()
      busy = now - self._busy_since if self._num_on_device else 0.0
      return Totals(
        now - self._began, self._device_seconds + busy, self._num_rejected
      )

  def keep(self) -> None:
    """Writes the totals for `read`, if there is a directory and news."""
    if self._file is None:
      return
    with self._keeping:
      now, totals = time.monotonic(), self.totals()
      moment, num_rejected = self._kept
      if now < moment + _KEPT_SECONDS and totals.num_rejected == num_rejected:
        return
      self._kept = now, totals.num_rejected
      beside = self._file.with_suffix('.tmp')
      beside.write_text(json.dumps(dataclasses.asdict(totals)))
      beside.replace(self._file)


def read(directory: str) -> Totals:
  """The sum of what processes on this machine keep in a directory."""
  files = pathlib.Path(directory).glob(_FILE.format(process='*'))
  return sum((Totals(**json.loads(x.read_text())) for x in files), Totals())
