"""The end of a projection: shards become the next generation of an index."""

from collections.abc import Iterable

from influence_core import errors
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  rejected_examples,
)
from pipeline.projection import plan as plan_lib


def publish_plan(
  index: str,
  plan: plan_lib.Plan,
  committed: Iterable[index_format.Shard],
  max_rejected_fraction: float,
) -> manifest_lib.Manifest:
  """Publishes shards that were just committed, and those that are adopted.

  Raises:
    errors.InputError: They are not what the plan wants, so that nothing may be
      published.
  """
  new = list(committed)
  shards = order_shards(plan, [*new, *plan_lib.adopt_shards(index, plan, new)])
  if missing := index_format.missing_files(index, shards):
    raise errors.InputError(
      f'{len(missing)} files of the new generation are gone, such as '
      f'{missing[0]}; run project again'
    )
  rejected_examples.check_fraction(index, shards, max_rejected_fraction)
  rejected = rejected_examples.save_list(index, shards)
  return manifest_lib.publish(index, plan.provenance, shards, rejected)


def order_shards(plan: plan_lib.Plan, shards) -> tuple[index_format.Shard, ...]:
  """Shards in plan order, each range exactly once.

  Raises:
    errors.InputError: A range is missing, unknown or reported differently
      twice, so that nothing may be published.
  """
  by_range: dict[index_format.ExampleRange, index_format.Shard] = {}
  for shard in shards:
    other = by_range.setdefault(shard.range, shard)
    if other != shard:
      raise errors.InputError(
        f'range {shard.range.stem} was committed as {other.rows.name} and as '
        f'{shard.rows.name}; run project again'
      )
  missing = [item for item in plan.ranges if item not in by_range]
  unknown = by_range.keys() - set(plan.ranges)
  if missing or unknown:
    example = missing[0] if missing else next(iter(unknown))
    raise errors.InputError(
      f'{len(missing)} ranges of the plan are missing and {len(unknown)} are '
      f'not part of it, such as {example.stem}; run project again'
    )
  return tuple(by_range[item] for item in plan.ranges)
