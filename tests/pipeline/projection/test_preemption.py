"""Runs that are played through, against what can be computed by hand."""

import pytest

from influence_core import errors
from pipeline.projection import preemption, workload as workload_lib

# A minute a range of the usual size.
WORKLOAD = workload_lib.Workload(
  read_seconds=0.002,
  project_seconds=0.0125,
  write_seconds=0.00014844,
  start_seconds=30.0,
  start_bytes=10**9,
  index_bytes=500.0,
  reads_of_a_range=3.0,
  range_size=4096,
)
RANGE_SECONDS = 4096 * WORKLOAD.seconds
CALM = preemption.Conditions()


def play(num_ranges, num_workers, conditions, **options):
  return preemption.play(
    WORKLOAD, 4096 * num_ranges, num_workers, conditions, **options
  )


@pytest.mark.parametrize(
  ('num_ranges', 'num_workers', 'most'), [(12, 1, 12), (12, 5, 3), (3, 100, 1)]
)
def test_undisturbed_runs_are_sums(num_ranges, num_workers, most):
  found = play(num_ranges, num_workers, CALM)
  start = WORKLOAD.start_seconds
  assert found.wall_seconds == pytest.approx(most * RANGE_SECONDS + start)
  there = min(num_workers, num_ranges)
  expected = num_ranges * RANGE_SECONDS + there * start
  assert found.worker_seconds == pytest.approx(expected)
  assert found.wasted_seconds == found.num_preemptions == 0
  assert found.num_starts == there


def test_a_thousand_preemptible_workers():
  """Each is lost every two hours, one in twenty is half as fast.

  A preemption finds a range half done on average: rate x range / 2 is wasted,
  and a bit less since the end of a range is rarely reached twice.
  """
  conditions = preemption.Conditions(0.5, slow_share=0.05, slow_factor=2.0)
  found = play(60_000, 1000, conditions)
  expected = 0.5 * RANGE_SECONDS / 2 / 3600
  assert found.wasted_share == pytest.approx(expected, rel=0.15)
  assert found.wasted_share <= 0.03
  hours = found.worker_seconds / 3600
  # Their number scatters by its square root.
  assert found.num_preemptions == pytest.approx(0.5 * hours, rel=0.1)
  # Nobody waits longer than a slow range at the end, lost once or twice.
  ideal = 60_000 * RANGE_SECONDS / (950 + 50 / 2)
  assert found.wall_seconds < 1.06 * ideal


@pytest.mark.parametrize('minutes', [1, 4, 16])
def test_waste_goes_with_the_range(minutes):
  workload = workload_lib.Workload(
    **{**WORKLOAD.__dict__, 'range_size': 4096 * minutes}
  )
  found = preemption.play(
    workload, 4096 * 16_000, 200, preemption.Conditions(1.0)
  )
  expected = minutes * RANGE_SECONDS / 2 / 3600
  assert found.wasted_share == pytest.approx(expected, rel=0.25)


def test_same_seed_same_run():
  conditions = preemption.Conditions(2.0)
  one, same, other = (play(300, 20, conditions, seed=x) for x in (0, 0, 1))
  assert one == same != other


def test_ranges_that_are_never_finished_are_told():
  with pytest.raises(errors.InputError, match='choose a smaller --range_size'):
    play(10, 2, preemption.Conditions(200.0))
  with pytest.raises(errors.InputError, match='preemptions_per_hour is -1'):
    preemption.Conditions(-1.0)
