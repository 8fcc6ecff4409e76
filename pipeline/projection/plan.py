"""The plan: which ranges of which source shards a projection covers.

It is stored in the directory of the index before any worker starts, and the
last step of the pipeline publishes only what fulfils it. Ranges that the newest
generation has are adopted from it, so that only what changed is projected.
"""

from collections.abc import Iterable
import dataclasses
import itertools
import math
from typing import Any
import uuid

from pipeline.corpora import corpus as corpus_lib
from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  stored_objects,
)


@dataclasses.dataclass(frozen=True)
class Plan:
  """All ranges of a corpus, in its order, and what they are projected with.

  Attributes:
    provenance: what they are projected with.
    ranges: all of them.
    adopted_generation: whose shards are taken for ranges that it has; None for
      none.
  """

  provenance: manifest_lib.Provenance
  ranges: tuple[index_format.ExampleRange, ...]
  adopted_generation: int | None = None

  @property
  def num_examples(self) -> int:
    return sum(item.num_examples for item in self.ranges)

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def make_plan(
  corpus: corpus_lib.Corpus,
  provenance: manifest_lib.Provenance,
  range_size: int,
) -> Plan:
  """Cuts a corpus into ranges of at most `range_size` examples.

  A range never crosses source shards, and its examples depend on the corpus and
  range_size alone, not on the number of workers: every run of the same command
  names the same shards.

  Args:
    corpus: the training split.
    provenance: what it is projected with; the corpus itself is added to its
      fingerprints.
    range_size: largest number of examples of a range, at least 1.
  """
  ranges, source_fingerprints = [], []
  for shard in corpus.source_shards():
    source = corpus.shard_fingerprint(shard.name)
    source_fingerprints.append([shard.name, shard.start, shard.stop, source])
    fingerprint = index_format.range_fingerprint(
      source, provenance.fingerprints
    )
    ranges += cut(shard, range_size, fingerprint)
  found = {'corpus': fingerprints.of_json(source_fingerprints)}
  provenance = dataclasses.replace(
    provenance, fingerprints={**provenance.fingerprints, **found}
  )
  return Plan(provenance, tuple(ranges))


def cut(
  shard: corpus_lib.SourceShard, range_size: int, fingerprint: str
) -> list[index_format.ExampleRange]:
  """Ranges of a source shard, as equal as they can be.

  Args:
    shard: the part of a file.
    range_size: largest number of examples of a range, at least 1.
    fingerprint: of each range.
  """
  size = shard.stop - shard.start
  count = math.ceil(size / range_size)
  edges = [shard.start + size * i // count for i in range(count + 1)]
  return [
    index_format.ExampleRange(shard.name, start, stop, fingerprint)
    for start, stop in itertools.pairwise(edges)
  ]


def save(index: str, plan: Plan) -> str:
  """Stores the plan of a run under a name of its own; returns the path.

  Its age tells `generations.find_garbage` what a run may still be at work on.
  """
  path = new_path(index)
  storage.create_exclusive(path, checked_files.encode_json(plan.to_json()))
  return path


def new_path(index: str) -> str:
  """A name that no plan has."""
  return storage.join(index, 'plans', f'plan-{uuid.uuid4().hex}.json')


def load(path: str) -> Plan:
  return stored_objects.parse(Plan, checked_files.read_json(path), path)


@dataclasses.dataclass(frozen=True)
class Changes:
  """What separates the newest generation from what a plan wants.

  Attributes:
    generation: the newest one; None where nothing is published.
    reused: shards of it that the plan has too, their files in place.
    wanted: ranges of the plan that it has not.
    num_dropped: ranges of it whose examples are no range of the plan.
    num_damaged: ranges whose files are gone or cut short.
    all_new_because: what every range of an index depends on and has changed,
      as "basis is 1a2b, was 3c4d"; None if nothing such has.
    is_empty: whether the newest generation is what the plan wants.
  """

  generation: int | None
  reused: tuple[index_format.Shard, ...]
  wanted: tuple[index_format.ExampleRange, ...]
  num_dropped: int
  num_damaged: int
  all_new_because: str | None
  is_empty: bool


def find_changes(index: str, plan: Plan) -> Changes:
  """Compares a plan with the newest generation.

  Files are checked by name and size in one listing, so that a scheduler can
  ask at any time; `verify` reads them.
  """
  if not manifest_lib.generations(index):
    return Changes(None, (), plan.ranges, 0, 0, None, False)
  manifest = manifest_lib.load(index)
  missing = set(index_format.missing_files(index, manifest.shards))
  there = {
    shard.range: shard
    for shard in manifest.shards
    if not {shard.rows.name, shard.vectors.name} & missing
  }
  reused = tuple(there[item] for item in plan.ranges if item in there)
  wanted = tuple(item for item in plan.ranges if item not in there)
  places = {(x.source_shard, x.start, x.stop) for x in plan.ranges}
  return Changes(
    manifest.generation,
    reused,
    wanted,
    num_dropped=sum(
      (x.range.source_shard, x.range.start, x.range.stop) not in places
      for x in manifest.shards
    ),
    num_damaged=len(manifest.shards) - len(there),
    all_new_because=_common_change(manifest.provenance, plan.provenance),
    is_empty=manifest.provenance == plan.provenance
    and tuple(shard.range for shard in manifest.shards) == plan.ranges
    and not wanted,
  )


def adopt_shards(
  index: str, plan: Plan, committed: Iterable[index_format.Shard]
) -> list[index_format.Shard]:
  """Shards of an earlier generation for ranges that were not projected."""
  if plan.adopted_generation is None:
    return []
  left = set(plan.ranges) - {shard.range for shard in committed}
  manifest = manifest_lib.load(index, plan.adopted_generation)
  return [shard for shard in manifest.shards if shard.range in left]


def _common_change(
  old: manifest_lib.Provenance, new: manifest_lib.Provenance
) -> str | None:
  """What has changed of the fingerprints, but for the corpus."""
  for name, value in sorted(new.fingerprints.items()):
    before = old.fingerprints.get(name)
    if name != 'corpus' and before != value:
      return f'{name} is {value}, was {before}'
  return None
