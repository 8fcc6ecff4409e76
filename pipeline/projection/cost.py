"""What projecting a corpus takes, by what a few ranges of it took."""

from collections.abc import Mapping
import dataclasses
import math

from influence_core import errors
from pipeline.projection import preemption
from pipeline.projection.workload import Workload

# Requests of a worker for a range, besides those of its source: a listing for a
# shard that is there, and the fingerprint of the source.
_READS_OF_A_RANGE = 2
# Vectors and rows.
_WRITES_OF_A_RANGE = 2
# Of the manifest for a range, by one process at the end: 250,000 of them were
# published in 11 seconds, see benchmark_scale.
_PUBLISH_SECONDS = 45e-6
_GB = 1e9
_CALM = preemption.Conditions()


@dataclasses.dataclass(frozen=True)
class Prices:
  """What things cost; of a TOML file with these names.

  Attributes:
    currency: of all of them.
    worker_hour: of a worker with its accelerator.
    gb_month: of a gigabyte (10^9 bytes) stored for a month.
    reads_10000: of ten thousand reads of an object store.
    writes_10000: of ten thousand writes, or listings.
  """

  currency: str = ''
  worker_hour: float = 0.0
  gb_month: float = 0.0
  reads_10000: float = 0.0
  writes_10000: float = 0.0

  @classmethod
  def of(cls, content: Mapping[str, object]) -> 'Prices':
    """Those of a table.

    Raises:
      errors.InputError: A name is unknown, or a price no number.
    """
    known = {field.name: field for field in dataclasses.fields(cls)}
    for name, value in content.items():
      if name not in known:
        raise errors.InputError(
          f'prices have an unknown key {name!r}, expected {", ".join(known)}'
        )
      kinds = (str,) if name == 'currency' else (int, float)
      if not isinstance(value, kinds) or isinstance(value, bool):
        raise errors.InputError(
          f'price {name} is {value!r}, expected '
          f'{"a text" if name == "currency" else "a number"}'
        )
    return cls(**content)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What a number of examples takes.

  Attributes:
    num_examples: of the corpus.
    num_workers: at the same time.
    worker_hours: of all workers.
    wall_hours: from begin to end.
    wasted_share: of the worker hours, on ranges whose worker was taken away.
    index_bytes: of the index.
    start_bytes: that all workers that start read of parameters and basis.
    num_reads: requests to the object store that read.
    num_writes: those that write.
    cost: of the run, without storage; None without prices.
    cost_a_month: of storage; None without prices.
  """

  num_examples: int
  num_workers: int
  worker_hours: float
  wall_hours: float
  wasted_share: float
  index_bytes: int
  start_bytes: int
  num_reads: int
  num_writes: int
  cost: float | None = None
  cost_a_month: float | None = None


def estimate(
  workload: Workload,
  num_examples: int,
  num_workers: int,
  prices: Prices | None = None,
  conditions: preemption.Conditions = _CALM,
) -> Estimate:
  """What a corpus of so many examples takes.

  Args:
    workload: what was measured.
    num_examples: of the corpus.
    num_workers: at the same time.
    prices: None for no cost.
    conditions: that workers are exposed to.

  Raises:
    errors.InputError: Workers are taken away faster than they finish a range.
  """
  num_ranges = math.ceil(num_examples / workload.range_size)
  run = preemption.play(workload, num_examples, num_workers, conditions)
  worker_hours = run.worker_seconds / 3600
  index_bytes = round(num_examples * workload.index_bytes)
  reads = round(num_ranges * (workload.reads_of_a_range + _READS_OF_A_RANGE))
  writes = num_ranges * _WRITES_OF_A_RANGE
  found = Estimate(
    num_examples,
    max(1, min(num_workers, num_ranges)),
    worker_hours,
    (run.wall_seconds + num_ranges * _PUBLISH_SECONDS) / 3600,
    run.wasted_share,
    index_bytes,
    run.num_starts * workload.start_bytes,
    reads,
    writes,
  )
  if prices is None:
    return found
  return dataclasses.replace(
    found,
    cost=worker_hours * prices.worker_hour
    + reads / 10_000 * prices.reads_10000
    + writes / 10_000 * prices.writes_10000,
    cost_a_month=index_bytes / _GB * prices.gb_month,
  )
