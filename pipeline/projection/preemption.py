"""A projection on workers that may be taken away, event by event.

Cheap workers are taken back at any moment, some are slower than others, and the
last ranges are waited for. What that does to a plan is not a formula that one
would trust; so it is played through, with the times that were measured.
"""

import dataclasses
import math

import numpy as np
import simpy

from influence_core import errors
from pipeline.projection.workload import Workload


@dataclasses.dataclass(frozen=True)
class Conditions:
  """What workers are exposed to.

  Attributes:
    preemptions_per_hour: of each worker, at random moments.
    replacement_seconds: until another one is there, which then has to start.
    slow_share: of the workers, that are slower than those measured.
    slow_factor: how many times as long they take.
  """

  preemptions_per_hour: float = 0.0
  replacement_seconds: float = 60.0
  slow_share: float = 0.0
  slow_factor: float = 1.0

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      if not 0 <= value < math.inf:
        raise errors.InputError(
          f'{field.name} is {value}, expected a finite number of at least 0'
        )


@dataclasses.dataclass(frozen=True)
class PlayedRun:
  """How a run went.

  Attributes:
    wall_seconds: from begin to end.
    worker_seconds: that workers were there, starting or working.
    wasted_seconds: of them, on ranges that were not finished.
    num_preemptions: workers that were taken away.
    num_starts: of workers; each reads parameters and basis once.
  """

  wall_seconds: float
  worker_seconds: float
  wasted_seconds: float
  num_preemptions: int
  num_starts: int

  @property
  def wasted_share(self) -> float:
    return self.wasted_seconds / self.worker_seconds


def play(
  workload: Workload,
  num_examples: int,
  num_workers: int,
  conditions: Conditions,
  seed: int = 0,
) -> PlayedRun:
  """Plays a projection through.

  Args:
    workload: what was measured.
    num_examples: of the corpus.
    num_workers: at the same time.
    conditions: of the workers.
    seed: of what happens when.

  Raises:
    errors.InputError: Workers are taken away faster than they finish a range.
  """
  full, rest = divmod(num_examples, workload.range_size)
  sizes = [workload.range_size] * full + [rest] * (rest > 0)
  longest = max(sizes) * workload.seconds * max(1.0, conditions.slow_factor)
  if conditions.preemptions_per_hour * longest / 3600 > 3:
    raise errors.InputError(
      f'a range takes {longest / 60:.0f} minutes and a worker is taken away '
      f'{conditions.preemptions_per_hour:g} times an hour, so that hardly any '
      'is finished; choose a smaller --range_size'
    )
  run = _Run(workload, sizes, conditions, np.random.default_rng(seed))
  return run.play(max(1, min(num_workers, len(sizes))))


class _Run:
  """Ranges that wait, and what workers have done."""

  def __init__(
    self,
    workload: Workload,
    sizes: list[int],
    conditions: Conditions,
    generator: np.random.Generator,
  ):
    self._workload = workload
    self._waiting = sizes
    self._conditions = conditions
    self._generator = generator
    self._environment = simpy.Environment()
    self._worker_seconds = 0.0
    self._wasted_seconds = 0.0
    self._num_preemptions = 0
    self._num_starts = 0

  def play(self, num_workers: int) -> PlayedRun:
    num_slow = round(self._conditions.slow_share * num_workers)
    for number in range(num_workers):
      factor = self._conditions.slow_factor if number < num_slow else 1.0
      self._environment.process(self._work(factor))
    self._environment.run()
    assert not self._waiting
    return PlayedRun(
      self._environment.now,
      self._worker_seconds,
      self._wasted_seconds,
      self._num_preemptions,
      self._num_starts,
    )

  def _work(self, factor: float):
    """A worker, and those that come in its place."""
    while self._waiting:
      is_there = yield from self._spend(
        self._workload.start_seconds, self._next_preemption()
      )
      self._num_starts += 1
      while is_there and self._waiting:
        size = self._waiting.pop()
        seconds = size * self._workload.seconds * factor
        began = self._environment.now
        is_there = yield from self._spend(seconds, self._next_preemption())
        if not is_there:
          self._wasted_seconds += self._environment.now - began
          self._waiting.append(size)
      if not is_there:
        self._num_preemptions += 1
        yield self._environment.timeout(self._conditions.replacement_seconds)

  def _spend(self, seconds: float, preemption: float):
    """Waits; whether the worker is there afterwards."""
    spent = min(seconds, preemption)
    self._worker_seconds += spent
    yield self._environment.timeout(spent)
    return seconds <= preemption

  def _next_preemption(self) -> float:
    """Seconds from any moment: they have no memory."""
    rate = self._conditions.preemptions_per_hour / 3600
    return self._generator.exponential(1 / rate) if rate else math.inf
