"""One pass over blocks of rows: the leaders of many queries.

What `retrieve` and `certify` make their answers of, here or on a Beam runner.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses

import numpy as np

from influence_core import errors, types
from influence_core.scores import (
  exact_sums,
  influence as influence_scores,
  top_k,
)
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import (
  error_bounds,
  row_blocks,
  selection as selection_lib,
)

# float32 sums err by less, as part of the norms of both sides.
_ROUNDING = 2.0**-18


@dataclasses.dataclass(frozen=True)
class Leading:
  """Leaders among some shards; `merge` puts them together.

  Attributes:
    highest: by score.
    lowest: by score with its sign turned.
    own: by self-influence, as of a single query.
  """

  highest: top_k.Leaders
  lowest: top_k.Leaders
  own: top_k.Leaders


def scan(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  *,
  k: int,
  options: ScoreOptions,
  selection: selection_lib.Selection = selection_lib.EVERYTHING,
  shard_numbers: Sequence[int] | None = None,
  upper_bounds: bool = False,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, Leading]:
  """Leaders among some shards, by value of the column to group by.

  Args: those of `search`, and
    shard_numbers: of the shards of the first member to read, in increasing
      order; None for all.
    upper_bounds: whether leaders are those by the most that their scores (at
      the other end, their scores with signs turned) can be in float32.
  """
  check(index, query_projections, k, selection)
  scorer = row_blocks.Scorer(index, options, with_errors=upper_bounds)
  queries = index.weight_queries(query_projections, options)
  norms = influence_scores.query_norms(queries, index.column_weights(options))
  num_leaders = selection.num_leaders(k)
  parts = members_lib.parts_of(index)
  if upper_bounds:
    errors_of = error_bounds.ErrorFactors(index, options)
    factors = errors_of.of_queries(query_projections)

  def new_scan() -> _Scan:
    if upper_bounds:
      return _UpperBoundScan(queries, norms, factors, num_leaders, parts)
    return _Scan(queries, norms, num_leaders, parts)

  scans: dict[object, _Scan] = {}
  if selection.group_by is None:
    scans[None] = new_scan()
  for block in row_blocks.scored_rows(
    index, scorer, selection, shard_numbers=shard_numbers, progress=progress
  ):
    for value, part in row_blocks.by_group(block):
      if value not in scans:
        scans[value] = new_scan()
      scans[value].add(part)
  return {value: scan.leading() for value, scan in scans.items()}


def check(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  k: int,
  selection: selection_lib.Selection,
) -> None:
  """Checks the arguments of a search against an index.

  Raises:
    errors.InputError: k, the width of the projections or the selection does
      not fit.
  """
  errors.check_at_least_one(k=k)
  row_blocks.check_selection(index, selection)
  dim = index.projection_dim
  if query_projections.ndim != 2 or query_projections.shape[1] != dim:
    raise errors.InputError(
      f'queries have shape {query_projections.shape}, expected {dim} '
      'coordinates each, the projection_dim of the index'
    )


def merge(
  parts: Iterable[Mapping[object, Leading]],
  *,
  k: int,
  selection: selection_lib.Selection,
) -> dict[object, Leading]:
  """What `scan` would give for all shards that the parts were made of."""
  by_value: dict[object, list[Leading]] = {}
  for part in parts:
    for value, leading in part.items():
      by_value.setdefault(value, []).append(leading)
  count = selection.num_leaders(k)
  return {
    value: Leading(
      top_k.merge([leading.highest for leading in some], count),
      top_k.merge([leading.lowest for leading in some], count),
      top_k.merge([leading.own for leading in some], count),
    )
    for value, some in by_value.items()
  }


class _Scan:
  """Leaders of one group of examples."""

  def __init__(
    self,
    queries: np.ndarray,
    norms: np.ndarray,
    k: int,
    parts: Sequence[slice],
    *,
    both_ends: bool = True,
  ):
    self._parts = parts
    self._ends = top_k.TopKScan(
      queries, norms, k, both_ends=both_ends, parts=parts
    )
    self._own = top_k.Leaders.none(1, k)

  def add(self, rows: row_blocks.ScoredRows) -> None:
    self._own = top_k.with_scores(
      self._own, rows.self_influence, rows.positions
    )
    self._add_to_ends(rows)

  def _add_to_ends(self, rows: row_blocks.ScoredRows) -> None:
    self._ends.add(
      rows.vectors,
      rows.positions,
      bounds=rows.bounds,
      scales=rows.scales,
    )

  def leading(self) -> Leading:
    return Leading(self._ends.highest(), self._ends.lowest(), self._own)


class _UpperBoundScan(_Scan):
  """Leaders by the most that scores, and scores with signs turned, can be.

  Both are inner products with one more coordinate for each member, see
  `scores.rounding`.
  """

  def __init__(
    self,
    queries: np.ndarray,
    norms: np.ndarray,
    factors: np.ndarray,
    k: int,
    parts: Sequence[slice],
  ):
    self._num_queries = len(queries)
    # Sums and scales are rounded too, by so much of |query| |row|.
    most = np.maximum(factors.sum(axis=1), np.finfo(np.float32).tiny)
    self._rounding = _ROUNDING * (norms / most).max()
    super().__init__(
      np.block([[queries, factors], [-queries, factors]]),
      np.tile(np.hypot(norms, np.linalg.norm(factors, axis=1)), 2),
      k,
      parts,
      both_ends=False,
    )

  def _add_to_ends(self, rows: row_blocks.ScoredRows) -> None:
    vectors = exact_sums.scaled(rows.vectors, rows.scales, self._parts)
    more = rows.error_factors + self._rounding * rows.bounds[:, None]
    self._ends.add(
      np.concatenate([vectors, more], axis=1, dtype=np.float32),
      rows.positions,
      bounds=np.hypot(rows.bounds, np.linalg.norm(more, axis=1)),
    )

  def leading(self) -> Leading:
    highest = self._ends.highest()
    first, last = (
      top_k.Leaders(highest.scores[part], highest.positions[part])
      for part in (slice(self._num_queries), slice(self._num_queries, None))
    )
    return Leading(first, last, self._own)
