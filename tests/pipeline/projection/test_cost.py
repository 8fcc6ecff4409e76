"""Estimates are sums that anybody can do by hand."""

import pytest

from influence_core import errors
from pipeline.projection import cost, preemption, workload

WORKLOAD = workload.Workload(
  read_seconds=0.01,
  project_seconds=0.08,
  write_seconds=0.01,
  start_seconds=36.0,
  start_bytes=10**9,
  index_bytes=500.0,
  reads_of_a_range=3.0,
  range_size=100,
)
PRICES = cost.Prices('EUR', 2.0, 0.02, 0.004, 0.05)


def test_one_worker():
  found = cost.estimate(WORKLOAD, 36_000, 1)
  # An hour of work and 36 s of start.
  assert found.worker_hours == pytest.approx(1.01)
  # And the manifest of 360 ranges.
  assert found.wall_hours == pytest.approx(1.01, rel=1e-4)
  assert found.wall_hours > 1.01
  assert found.start_bytes == 10**9
  assert found.index_bytes == 18_000_000
  assert (found.num_reads, found.num_writes) == (360 * 5, 360 * 2)
  assert found.cost is None


def test_many_workers_with_prices():
  found = cost.estimate(WORKLOAD, 36_000, 7, PRICES)
  # The slowest of seven has 52 of 360 ranges; each starts by itself.
  assert found.wall_hours == pytest.approx((52 * 100 * 0.1 + 36) / 3600, 1e-4)
  assert found.worker_hours == pytest.approx(1 + 7 * 0.01)
  assert found.start_bytes == 7 * 10**9
  assert found.cost == pytest.approx(2 * 1.07 + 0.18 * 0.004 + 0.072 * 0.05)
  assert found.cost_a_month == pytest.approx(0.018 * 0.02)


def test_preemptible_workers_waste_some():
  conditions = preemption.Conditions(preemptions_per_hour=6.0)
  calm, found = (
    cost.estimate(WORKLOAD, 360_000, 7, PRICES, x)
    for x in (preemption.Conditions(), conditions)
  )
  # Of ranges of 10 s, half of one each time.
  assert found.wasted_share == pytest.approx(6 * 5 / 3600, rel=0.3)
  assert found.worker_hours > calm.worker_hours
  assert found.cost > calm.cost
  assert calm.wasted_share == 0


def test_there_are_no_more_workers_than_ranges():
  found = cost.estimate(WORKLOAD, 250, 1000)
  assert found.num_workers == 3
  assert found.wall_hours == pytest.approx((100 * 0.1 + 36) / 3600, 1e-4)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    ({'worker': 1}, "unknown key 'worker', expected currency, worker_hour"),
    ({'worker_hour': '1'}, "worker_hour is '1', expected a number"),
    ({'currency': 1}, 'currency is 1, expected a text'),
  ],
)
def test_prices_are_checked(content, message):
  with pytest.raises(errors.InputError, match=message):
    cost.Prices.of(content)
