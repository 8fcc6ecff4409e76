"""Several indexes of one corpus, of other models or checkpoints, as one."""

from collections.abc import Iterable, Sequence
import functools
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.index import (
  format as index_format,
  members as members_lib,
  reader,
  rejected_examples,
)


class Ensemble:
  """Indexes whose scores are added.

  Examples are numbered among those that all indexes have, in the order of the
  corpus. Rows are those of the first index.

  Attributes:
    path: of all indexes, as a shell writes them: W/{a,b}/index.
    members: the indexes, see `Searched`.
    num_left_out: examples that some indexes have and others rejected.
  """

  def __init__(
    self, indexes: Sequence[reader.Index], scales: Sequence[float] | None = None
  ):
    """Puts indexes together.

    Args:
      indexes: opened indexes of one corpus, at least one.
      scales: what the scores of each are multiplied by, positive; None for one
        over their number, which gives the mean.

    Raises:
      errors.InputError: They are of different corpora, or scales do not fit.
    """
    self.path = _together([index.path for index in indexes])
    if scales is None:
      scales = [1 / len(indexes)] * len(indexes)
    _check_scales(scales, len(indexes))
    for index in indexes[1:]:
      _check_same_corpus(index, indexes[0])
    rejected = [
      rejected_examples.load_ids(x.path, x.manifest.rejected) for x in indexes
    ]
    somewhere = frozenset.union(*rejected)
    self.num_left_out = len(somewhere - frozenset.intersection(*rejected))
    self.members = tuple(
      members_lib.Member(index, scale, _places(index, somewhere - own, indexes))
      for index, scale, own in zip(indexes, scales, rejected, strict=True)
    )

  @property
  def num_examples(self) -> int:
    first = self.members[0]
    return first.index.num_examples - len(first.left_out)

  @property
  def projection_dim(self) -> int:
    return sum(member.index.projection_dim for member in self.members)

  @functools.cached_property
  def schema(self) -> pa.Schema:
    return self.members[0].index.schema

  def column_weights(self, options: ScoreOptions) -> np.ndarray:
    return np.concatenate(
      [x.scale * x.index.column_weights(options) for x in self.members]
    )

  def weight_queries(
    self, query_projections: np.ndarray, options: ScoreOptions
  ) -> np.ndarray:
    parts = members_lib.parts_of(self)
    weighted = [
      x.index.weight_queries(query_projections[:, part], options)
      * np.float32(x.scale)
      for x, part in zip(self.members, parts, strict=True)
    ]
    return np.concatenate(weighted, axis=1)

  def rows(
    self,
    positions: Sequence[int] | np.ndarray | None = None,
    columns: Sequence[str] | None = None,
  ) -> pa.Table:
    first = self.members[0]
    if positions is None and not len(first.left_out):
      return first.index.rows(columns=columns)
    if positions is None:
      positions = np.arange(self.num_examples)
    return first.index.rows(first.own(np.asarray(positions)), columns)

  def vectors(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    wanted = np.asarray(positions)
    return np.concatenate(
      [x.index.vectors(x.own(wanted)) for x in self.members], axis=1
    )

  def check_column(self, name: str) -> None:
    self.members[0].index.check_column(name)

  def check_eigenvectors(self, what: str) -> None:
    for member in self.members:
      member.index.check_eigenvectors(what)

  def check_examples(self, what: str) -> None:
    for member in self.members:
      member.index.check_examples(what)

  def check_layers(self, what: str) -> None:
    for member in self.members:
      member.index.check_layers(what)

  def __len__(self) -> int:
    return self.num_examples

  def __repr__(self) -> str:
    return (
      f'<{type(self).__name__} of {len(self.members)} indexes: '
      f'{self.num_examples:,} examples, {self.projection_dim} projections each>'
    )


def _together(paths: Sequence[str]) -> str:
  """Paths as one, with braces around what differs."""
  if len(paths) == 1:
    return paths[0]
  parts = [path.split('/') for path in paths]
  room = min(map(len, parts)) - 1
  start = end = 0
  while start < room and len({x[start] for x in parts}) == 1:
    start += 1
  while end < room - start and len({x[-1 - end] for x in parts}) == 1:
    end += 1
  differing = ','.join('/'.join(x[start : len(x) - end]) for x in parts)
  first = parts[0]
  return '/'.join(
    [*first[:start], f'{{{differing}}}', *first[len(first) - end :]]
  )


def _check_scales(scales: Sequence[float], count: int) -> None:
  for scale in scales:
    if not (math.isfinite(scale) and scale > 0):
      raise errors.InputError(f'scale is {scale}, expected a positive number')
  if len(scales) != count:
    raise errors.InputError(
      f'scale has {len(scales)} numbers, expected one for each of {count} '
      'indexes'
    )


def _check_same_corpus(index: reader.Index, first: reader.Index) -> None:
  """Refuses an index of other examples.

  Raises:
    errors.InputError: Names what differs.
  """
  own, others = _extents(index), _extents(first)
  fingerprint, expected = (
    x.manifest.provenance.fingerprints.get('corpus') for x in (index, first)
  )
  differing = [x for x in own | others if own.get(x) != others.get(x)]
  if differing:
    name = differing[0]
    told = (
      f'it has {_told(own.get(name))} of {name}, not {_told(others.get(name))}'
    )
  elif fingerprint != expected:
    told = 'files of the same names have another size, time or checksum'
  else:
    return
  raise errors.InputError(
    f'the index at {index.path} is of another corpus than that at '
    f'{first.path}: {told}; project the same files for both'
  )


def _told(extents: Sequence[tuple[int, int]] | None) -> str:
  parts = [f'{start} to {stop - 1}' for start, stop in extents or ()]
  return f'records {" and ".join(parts)}' if parts else 'nothing'


def _extents(index: reader.Index) -> dict[str, list[tuple[int, int]]]:
  """Records [start, stop) of each source shard, ranges that touch as one."""
  found: dict[str, list[tuple[int, int]]] = {}
  for shard in index.manifest.shards:
    own = found.setdefault(shard.range.source_shard, [])
    start, stop = shard.range.start, shard.range.stop
    if own and own[-1][1] == start:
      start = own.pop()[0]
    own.append((start, stop))
  return found


def _places(
  index: reader.Index, ids: Iterable[str], indexes: Sequence[reader.Index]
) -> np.ndarray:
  """Positions of examples that others of the indexes rejected."""
  missing = pa.array(sorted(ids), pa.string())
  if not len(missing):
    return members_lib.NO_POSITIONS
  rejecting = [
    shard.range
    for other in indexes
    for shard in other.manifest.shards
    if shard.num_rejected
  ]
  found, first = [members_lib.NO_POSITIONS], 0
  for shard in index.manifest.shards:
    if any(shard.range.overlaps(other) for other in rejecting):
      own = index_format.read_rows(index.path, shard, ['id'])['id']
      # Where all were rejected, there is no type.
      is_missing = pc.is_in(own.cast(pa.string()), missing)
      found.append(first + np.flatnonzero(is_missing))
    first += shard.num_written
  return np.concatenate(found)
