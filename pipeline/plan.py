"""The plan: which ranges of which source shards a projection covers.

It is stored beside the index under the name of its content before any worker
starts, and the last step of the pipeline publishes only what fulfils it.
"""

from collections.abc import Mapping
import dataclasses
import itertools
import math
from typing import Any

from influence_core import errors
from pipeline import corpus as corpus_lib
from pipeline import fingerprints, index_format, storage
from pipeline import manifest as manifest_lib


@dataclasses.dataclass(frozen=True)
class Plan:
  """All ranges of a corpus, in its order, and what they are projected with."""

  provenance: manifest_lib.Provenance
  ranges: tuple[index_format.ExampleRange, ...]

  @property
  def num_examples(self) -> int:
    return sum(item.num_examples for item in self.ranges)

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> 'Plan':
    return cls(
      manifest_lib.Provenance.from_json(content['provenance']),
      tuple(index_format.ExampleRange(**item) for item in content['ranges']),
    )


def make_plan(
  corpus: corpus_lib.TfdsCorpus,
  *,
  task: dict[str, Any],
  basis: str,
  eigenvalues: tuple[float, ...],
  task_fingerprints: Mapping[str, str],
  basis_fingerprint: str,
  basis_dtype: str,
  range_size: int,
) -> Plan:
  """Cuts a corpus into ranges of at most `range_size` examples.

  A range never crosses source shards, and depends on the corpus and range_size
  alone, not on the number of workers: every run of the same command names the
  same shards.

  Args:
    corpus: the training split.
    task: the task reference as JSON.
    basis: absolute path of the basis.
    eigenvalues: of the basis.
    task_fingerprints: from `LoadedTask.fingerprints`.
    basis_fingerprint: of eigenvalues and eigenvectors.
    basis_dtype: that gradients are projected with.
    range_size: largest number of examples of a range.

  Raises:
    errors.InputError: range_size is not positive.
  """
  if range_size < 1:
    raise errors.InputError(f'range_size is {range_size}, expected at least 1')
  common = index_format.projection_fingerprints(
    task_fingerprints, basis_fingerprint, basis_dtype
  )
  ranges, source_fingerprints = [], []
  for shard in corpus.source_shards():
    source = corpus.shard_fingerprint(shard.name)
    source_fingerprints.append([shard.name, shard.start, shard.stop, source])
    fingerprint = index_format.range_fingerprint(source, common)
    size = shard.stop - shard.start
    count = math.ceil(size / range_size)
    edges = [shard.start + size * i // count for i in range(count + 1)]
    ranges += [
      index_format.ExampleRange(shard.name, start, stop, fingerprint)
      for start, stop in itertools.pairwise(edges)
    ]
  corpus_fingerprint = fingerprints.of_json(source_fingerprints)
  provenance = manifest_lib.Provenance(
    task, basis, eigenvalues, {**common, 'corpus': corpus_fingerprint}
  )
  return Plan(provenance, tuple(ranges))


def save(index: str, plan: Plan) -> str:
  """Stores the plan under the name of its content; returns the path."""
  content = plan.to_json()
  path = storage.join(
    index, 'plans', f'plan-{fingerprints.of_json(content)}.json'
  )
  storage.create_exclusive(path, storage.encode_json(content))
  return path


def load(path: str) -> Plan:
  return Plan.from_json(storage.read_json(path))


def is_published(index: str, plan: Plan) -> bool:
  """Whether the newest generation fulfils the plan and its files are there.

  Files are checked by name and size in one listing, so that a scheduler can
  ask at any time; `verify` reads them.
  """
  if not manifest_lib.generations(index):
    return False
  manifest = manifest_lib.load(index)
  if manifest.provenance != plan.provenance:
    return False
  if tuple(shard.range for shard in manifest.shards) != plan.ranges:
    return False
  found = storage.sizes(index_format.shards_directory(index))
  return all(
    found.get(file.name) == file.num_bytes
    for shard in manifest.shards
    for file in (shard.rows, shard.vectors)
  )
