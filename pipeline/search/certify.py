"""Leaders of an index in low precision that are, for certain, those in float32.

A pass over the index finds candidates by the most that their float32 scores can
be. Exact projections are then asked for in the order of these upper bounds, and
only as long as a candidate could still be among the leaders. Whatever leader
beats the bound of the last candidate also beats every example that is none.
"""

from collections.abc import Callable, Sequence
import dataclasses

import numpy as np

from influence_core import types
from influence_core.scores import exact_sums, top_k
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import (
  by_layer as by_layer_lib,
  member_rows,
  retrieve,
  scan as scan_lib,
  selection as selection_lib,
)

# [num_positions] positions -> [num_positions, projection_dim] float32.
ExactVectors = Callable[[np.ndarray], np.ndarray]

# Candidates of each pass, as multiples of k; more are not tried.
_CANDIDATES = (8, 64, 512)


def search_certified(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  *,
  k: int,
  options: ScoreOptions,
  exact_vectors: ExactVectors,
  selection: selection_lib.Selection = selection_lib.EVERYTHING,
  by_layer: bool = False,
  scan: Callable[..., dict[object, scan_lib.Leading]] = scan_lib.scan,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, retrieve.Found]:
  """What `retrieve.search` finds in float32, of an index in low precision.

  Args: those of `retrieve.search`, and
    exact_vectors: gives float32 projections of examples by position.

  Returns:
    As of `retrieve.search`. `certified` says of each rank whether it is sure;
    it can be missing at the last ranks where scores hardly differ.
  """
  k = retrieve.bounded_k(index, k)
  count = selection.num_leaders(k)
  weighted = index.weight_queries(query_projections, options)
  shares = by_layer_lib.LayerShares(index, options) if by_layer else None
  cached = _Cached(index, options, exact_vectors)
  for factor in _CANDIDATES:
    leading = scan(
      index,
      query_projections,
      # One more than there are: then nothing is left out.
      k=min(factor * count, index.num_examples + 1),
      options=options,
      selection=selection,
      upper_bounds=True,
      progress=progress,
    )
    if not leading:  # Groups of nothing.
      return {}
    # All groups and both ends at once, so that few calls fetch the vectors.
    ends = [end for x in leading.values() for end in (x.highest, x.lowest)]
    ranked = _rank_again(ends, weighted, count, cached)
    if all(top.certified.all() for top in ranked):  # type: ignore[union-attr]
      break
  if by_layer:
    exact_shares = by_layer_lib.LayerShares(index, options, cached.vectors)
    found = retrieve.positions_of(ranked)
    ranked = retrieve.attach(
      ranked, by_layer=exact_shares.of_scores(query_projections, found)
    )
  results = {
    value: retrieve.Found(
      highest,
      lowest,
      retrieve.most_self_influential(
        index, top_k.merge([part.own], count), options, shares
      ),
    )
    for (value, part), highest, lowest in zip(
      leading.items(), ranked[::2], ranked[1::2], strict=True
    )
  }
  return retrieve.exclude(index, results, k=k, selection=selection)


class _Cached:
  """Exact vectors of examples, fetched once, and how they are scored."""

  def __init__(
    self,
    index: members_lib.Searched,
    options: ScoreOptions,
    exact_vectors: ExactVectors,
  ):
    self._exact_vectors = exact_vectors
    self._rows = member_rows.MemberRows(index, options)
    self._parts = members_lib.parts_of(index)
    self._positions = np.empty(0, np.int64)
    self._vectors = np.empty((0, index.projection_dim), np.float32)
    self._scales: np.ndarray | None = None

  def scores(
    self, positions: np.ndarray, queries: np.ndarray, numbers: np.ndarray
  ) -> np.ndarray:
    """[n] float32 scores of n examples on the queries of these numbers."""
    places = self._places(positions)
    return exact_sums.exact_scores(
      self._vectors, places, queries, numbers, self._scales, self._parts
    )

  def vectors(self, positions: np.ndarray) -> np.ndarray:
    """[n, projection_dim] float32 of n examples."""
    return self._vectors[self._places(positions)]

  def _places(self, positions: np.ndarray) -> np.ndarray:
    self._fetch(np.setdiff1d(positions, self._positions))
    return np.searchsorted(self._positions, positions)

  def _fetch(self, positions: np.ndarray) -> None:
    if not len(positions):
      return
    vectors = self._exact_vectors(positions)
    scales = self._rows.scales(
      self._rows.self_influences(vectors),
      self._rows.squared_norms_at(positions),
    )
    places = np.searchsorted(self._positions, positions)
    self._positions = np.insert(self._positions, places, positions)
    self._vectors = np.insert(self._vectors, places, vectors, axis=0)
    if scales is not None:
      known = scales[:0] if self._scales is None else self._scales
      self._scales = np.insert(known, places, scales, axis=0)


def _rank_again(
  ends: Sequence[top_k.Leaders],
  weighted: np.ndarray,
  k: int,
  cached: _Cached,
) -> list[retrieve.TopExamples]:
  """Leaders by exact scores, of candidates by upper bounds.

  Candidates of a query stand in the order of falling upper bounds b1 >= b2 >=
  ..., and every example that is no candidate is below the last of them. k of
  them are scored exactly at a time, as long as the next bound reaches the k-th
  exact score so far. With k = 1, bounds 9, 7, 4 and exact scores 6, 5, 3: the
  first gives a leader of 6; 7 >= 6, so that the second is scored as well; 4 < 6
  ends it. The leader is certain, since 6 > 4 >= everything else.

  Args:
    ends: the highest and the lowest of each group, by turns.
    weighted: [num_queries, projection_dim], from `weight_queries`.
    k: leaders wanted at each end.
    cached: gives exact scores.
  """
  bounds = np.concatenate([end.scores for end in ends])
  positions = np.concatenate([end.positions for end in ends])
  queries = np.concatenate(
    [-weighted if number % 2 else weighted for number in range(len(ends))]
  )
  scores = np.full_like(bounds, -np.inf)
  columns = np.arange(bounds.shape[1])
  num_ranked = np.zeros((len(bounds), 1), np.int64)
  while True:
    leaders = top_k.merge([top_k.Leaders(scores, positions)], k)
    # Bounds fall, so that what may still lead comes first.
    is_open = positions != top_k.NO_POSITION
    is_open &= bounds >= leaders.thresholds[:, None]
    is_open &= (columns >= num_ranked) & (columns < num_ranked + k)
    rows, places = np.nonzero(is_open)
    if not len(rows):
      break
    scores[rows, places] = cached.scores(positions[rows, places], queries, rows)
    num_ranked += is_open.sum(axis=1, keepdims=True)
  # What is no candidate has a bound below the last one; -inf if there is none.
  certified = leaders.scores > bounds[:, -1:]
  missing = leaders.positions == top_k.NO_POSITION
  certified |= missing
  parts = [
    np.split(values, len(ends))
    for values in (leaders.scores, leaders.positions, certified)
  ]
  return [
    _end(*values, sign=-1 if number % 2 else 1)
    for number, values in enumerate(zip(*parts, strict=True))
  ]


def _end(
  scores: np.ndarray, positions: np.ndarray, certified: np.ndarray, *, sign: int
) -> retrieve.TopExamples:
  top = retrieve.trim(top_k.Leaders(sign * scores, positions))
  # What is left out comes last.
  width = top.positions.shape[1]
  return dataclasses.replace(top, certified=certified[:, :width])
