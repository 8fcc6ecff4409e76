"""What changed between two generations of an index, example by example.

Shards that both name are passed over; of the others, one source file is looked
at a time, since an example never moves between source files.
"""

from collections.abc import Iterator
import dataclasses

import numpy as np

from influence_core import types
from influence_core.scores.options import ScoreOptions
from pipeline.index import format as index_format, reader as index_reader
from pipeline.search import self_influence

_NUM_LISTED = 10


@dataclasses.dataclass(frozen=True)
class Difference:
  """What separates a generation from an earlier one.

  Attributes:
    num_unchanged: examples in shards that both have.
    num_recomputed: examples that both have, in different shards.
    num_added: examples that only the later one has.
    num_gone: examples that only the earlier one has.
    changed_fingerprints: names of what the generations depend on and differs.
    relative_moves: [num_recomputed] float32, |new - old| / |old| of the
      self-influence of the recomputed examples, each with the eigenvalues of
      its generation.
    largest_moves: id, old and new self-influence of the examples that moved
      most.
  """

  num_unchanged: int
  num_recomputed: int
  num_added: int
  num_gone: int
  changed_fingerprints: tuple[str, ...]
  relative_moves: np.ndarray
  largest_moves: tuple[tuple[str, float, float], ...]


def difference(
  old: index_reader.Index,
  new: index_reader.Index,
  *,
  options: ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> Difference:
  """Compares two generations.

  Args:
    old: the earlier one.
    new: the later one.
    options: how self-influence is scored.
    progress: called with the source files done.
  """
  shared = set(old.manifest.shards) & set(new.manifest.shards)
  num_added = num_gone = 0
  moves = [np.zeros(0, np.float32)]
  largest: list[tuple[float, str, float, float]] = []
  names = list(
    dict.fromkeys([*_source_names(old, shared), *_source_names(new, shared)])
  )
  for number, name in enumerate(names):
    before, after = (
      _self_influences(index, name, shared, options) for index in (old, new)
    )
    both = sorted(before.keys() & after.keys())
    num_gone += len(before) - len(both)
    num_added += len(after) - len(both)
    pairs = np.array([(before[x], after[x]) for x in both]).reshape(-1, 2)
    change = np.abs(pairs[:, 1] - pairs[:, 0])
    floor = np.finfo(np.float32).tiny
    moved = (change / np.maximum(pairs[:, 0], floor)).astype(np.float32)
    moves.append(moved)
    for place in np.argsort(-moved, kind='stable')[:_NUM_LISTED].tolist():
      largest.append((-moved[place], both[place], *pairs[place].tolist()))
    largest = sorted(largest)[:_NUM_LISTED]
    progress(number + 1, len(names))
  fingerprints = [x.manifest.provenance.fingerprints for x in (old, new)]
  relative_moves = np.concatenate(moves)
  return Difference(
    num_unchanged=sum(shard.num_written for shard in shared),
    num_recomputed=len(relative_moves),
    num_added=num_added,
    num_gone=num_gone,
    changed_fingerprints=tuple(
      name
      for name in sorted(fingerprints[0].keys() | fingerprints[1].keys())
      if fingerprints[0].get(name) != fingerprints[1].get(name)
    ),
    relative_moves=relative_moves,
    largest_moves=tuple(item[1:] for item in largest),
  )


def _source_names(
  index: index_reader.Index, shared: set[index_format.Shard]
) -> Iterator[str]:
  for shard in index.manifest.shards:
    if shard not in shared:
      yield shard.range.source_shard


def _self_influences(
  index: index_reader.Index,
  source_shard: str,
  shared: set[index_format.Shard],
  options: ScoreOptions,
) -> dict[str, float]:
  """Self-influence by id of the examples of a source file."""
  numbers = [
    number
    for number, shard in enumerate(index.manifest.shards)
    if shard.range.source_shard == source_shard and shard not in shared
  ]
  found: dict[str, float] = {}
  for _, scores, rows in self_influence.scores(
    index, options=options, columns=('id',), shard_numbers=numbers
  ):
    found |= zip(rows['id'].to_pylist(), scores.tolist(), strict=True)
  return found
