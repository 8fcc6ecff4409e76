"""Killed anywhere, retried, run at once: each example once, or nothing."""

import hypothesis
from hypothesis import strategies
import numpy as np
import pyarrow as pa
import pytest

from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.projection import plan as plan_lib, publishing
from tests.kit import simulated_store

INDEX = '/i'
RANGES = tuple(
  index_format.ExampleRange(source, start, start + 3, 'x')
  for source in ('f', 'g')
  for start in (0, 3)
)
PLAN = plan_lib.Plan(
  manifest_lib.Provenance({}, '', (2.0, 1.0), {'dtype': 'float32'}), RANGES
)


def content(example_range, attempt):
  """Three examples, the first one rejected in the second file.

  The last bits differ between attempts, as on accelerators.
  """
  ids = [f'{example_range.source_shard}__{i}' for i in range(3)]
  rejected = {ids[0]: 'bad'} if example_range.source_shard == 'g' else {}
  kept = ids[len(rejected) :]
  count = len(kept)
  rows = pa.table(
    {
      'id': kept,
      'loss': pa.array(np.full(count, attempt), pa.float32()),
      'squared_gradient_norm': pa.array(np.ones(count), pa.float32()),
    }
  )
  vectors = np.full((count, 2), attempt, np.float32)
  return index_format.ShardContent(vectors, rows, rejected)


def job(attempt, order):
  """What a run does with its ranges, in the order that a runner chose."""

  def run():
    shards = []
    for number in order:
      example_range = RANGES[number]
      shard = index_format.find_shard(INDEX, example_range)
      if shard is None:
        shard = index_format.write_shard(
          INDEX,
          example_range,
          content(example_range, attempt),
          PLAN.provenance.codec,
        )
      shards.append(shard)
    publishing.publish_plan(INDEX, PLAN, shards, 0.5)

  return run


def check_published():
  """Each generation that is there is whole, and all of them say the same."""
  manifests = [
    manifest_lib.load(INDEX, generation)
    for generation in manifest_lib.generations(INDEX)
  ]
  for manifest in manifests:
    assert tuple(shard.range for shard in manifest.shards) == RANGES
    assert (manifest.num_examples, manifest.num_rejected) == (10, 2)
    assert manifest.shards == manifests[0].shards
    for shard in manifest.shards:
      found = index_format.read_shard(INDEX, shard, manifest.provenance.codec)
      # Both files of a shard come from one attempt.
      assert len({*found.vectors.flat, *found.rows['loss'].to_pylist()}) == 1
  return len(manifests)


@pytest.fixture(name='store')
def fixture_store(monkeypatch):
  store = simulated_store.SimulatedStore()
  store.install(monkeypatch)
  return store


def start_three(store, orders):
  """Runs of the same plan at once, on an empty store."""
  store.objects.clear()
  return [
    simulated_store.Process(store, job(attempt, orders[attempt]))
    for attempt in range(3)
  ]


# A turn: which of three processes, and whether it is killed.
TURNS = strategies.lists(
  strategies.tuples(
    strategies.integers(0, 2),
    strategies.sampled_from([None] * 12 + ['before', 'after']),
  ),
  max_size=200,
)
ORDERS = strategies.lists(
  strategies.permutations(range(len(RANGES))), min_size=4, max_size=4
)


def interleaved(max_examples):
  """Runs a test with many turns and orders, on the one store."""
  settings = hypothesis.settings(
    max_examples=max_examples,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
  )
  given = hypothesis.given(turns=TURNS, orders=ORDERS)
  return lambda test: settings(given(test))


@pytest.mark.slow
@interleaved(max_examples=200)
def test_any_interleaving_publishes_each_example_once(store, turns, orders):
  processes = start_three(store, orders)
  for number, kill in turns:
    processes[number].advance(kill)
    check_published()
  # A retry after everything else has been killed where it was.
  for process in processes:
    process.advance('before')
    assert process.error is None
  retry = simulated_store.Process(store, job(9, orders[3]))
  retry.finish()
  assert retry.error is None
  assert check_published() == 1


@interleaved(max_examples=50)
def test_runs_at_once_all_end_with_one_generation(store, turns, orders):
  processes = start_three(store, orders)
  for number, _ in turns:
    processes[number].advance()
  for process in processes:
    process.finish()
    assert process.error is None
  assert check_published() == 1
