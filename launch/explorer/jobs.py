"""Questions that are being answered: one at a time, with their progress."""

import collections
from collections.abc import Callable, Iterator
import concurrent.futures
import contextlib
import secrets
import threading
from typing import Any

from influence_core import errors
from launch.output import console as console_lib, error_lines

# Answers that are kept, for those who come back to them.
_NUM_KEPT = 32


class Job:
  """A question and what has become of it.

  Attributes:
    id: nobody guesses it.
    state: 'waiting', 'running', 'done' or 'failed'.
    stage: what is being done.
    done: units of the stage that are done.
    total: of how many; 0 where that is not known.
    notes: what was told on the way.
    result: of the work, once it is done.
    error: in one line, if it failed.
  """

  def __init__(self):
    self.id = secrets.token_urlsafe(12)
    self.state = 'waiting'
    self.stage = ''
    self.done = self.total = 0
    self.notes: list[str] = []
    self.result: Any = None
    self.error = ''

  def run(self, work: Callable[['JobConsole'], Any]) -> None:
    """Does the work, and keeps what it gives."""
    self.state = 'running'
    try:
      self.result = work(JobConsole(self))
      self.state = 'done'
    except Exception as error:  # A page waits, and must be told of any.
      told = error_lines.expected_error(error)
      if told is None:
        console_lib.logger.error('a question failed', exc_info=True)
      self.error = (
        told.text
        if told
        else f'{type(error).__name__}: {errors.first_line(error)}'
      )
      self.state = 'failed'


class JobConsole(console_lib.Console):
  """Shows the progress of a job to whoever asks for it."""

  def __init__(self, job: Job):
    super().__init__(json_only=True)
    self._job = job

  def tell(self, text: str) -> None:
    self._job.notes.append(text)

  def warn(self, text: str) -> None:
    self._job.notes.append(text)

  @contextlib.contextmanager
  def stage(
    self, name: str, unit: str = 'examples'
  ) -> Iterator[console_lib.StageUpdate]:
    job = self._job
    job.stage, job.done, job.total = f'{name} ({unit})', 0, 0

    def update(num_done: int, num_total: int, /, **facts: float) -> None:
      del facts
      job.done, job.total = num_done, num_total

    yield update


class Jobs:
  """Does one job after the other, in a thread of its own."""

  def __init__(self):
    self._executor = concurrent.futures.ThreadPoolExecutor(1)
    self._jobs: collections.OrderedDict[str, Job] = collections.OrderedDict()
    self._lock = threading.Lock()

  def start(self, work: Callable[[JobConsole], Any]) -> Job:
    """Puts work at the end of the line."""
    job = Job()
    with self._lock:
      self._jobs[job.id] = job
      while len(self._jobs) > _NUM_KEPT:
        self._jobs.popitem(last=False)
    self._executor.submit(job.run, work)
    return job

  def get(self, job_id: str) -> Job | None:
    """A job that was started; None if it is not, or no longer, known."""
    with self._lock:
      return self._jobs.get(job_id)

  def close(self) -> None:
    """Leaves what is waiting undone."""
    self._executor.shutdown(wait=False, cancel_futures=True)
