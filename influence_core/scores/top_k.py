"""The strongest examples of many queries at both ends, exactly, in one pass.

Blocks of rows come in any order; of each query only the k highest and the k
lowest scores are kept. Three things make it as fast as the matrix product that
it needs, and independent of how rows are cut into blocks:

* |score(x, z)| <= sqrt(I(x, x)) sqrt(I(z, z)) by the Cauchy-Schwarz inequality,
  so rows that cannot reach any leader are left out of the product. Norms of
  gradients have heavy tails: after the first blocks most rows are.
* float32 products only choose candidates, with a margin for their rounding; the
  scores that are ranked and returned are summed in float64, each by itself.
* Ties are broken by position, and leaders are merged as arrays.
"""

from collections.abc import Sequence
import dataclasses

import numpy as np

from influence_core.devices import host_products
from influence_core.scores import exact_sums

# Queries multiplied at a time: their scores for a block stay in a cache.
_TILE_QUERIES = 256
# Fraction of a block below which its remaining rows are copied together.
_WORTH_COPYING = 0.7
# float32 sums of n products err by less than n * 2^-24 of the sum of absolute
# values; bounds are rounded too.
_ROUNDING = 2.0**-22
NO_POSITION = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True)
class Leaders:
  """The highest scores of each query, best first, ties by lower position.

  Attributes:
    scores: [num_queries, k] float32; -inf where there are fewer examples.
    positions: [num_queries, k] int64; `NO_POSITION` there.
  """

  scores: np.ndarray
  positions: np.ndarray

  @classmethod
  def none(cls, num_queries: int, k: int) -> 'Leaders':
    shape = (num_queries, k)
    return cls(np.full(shape, -np.inf, np.float32), np.full(shape, NO_POSITION))

  @property
  def thresholds(self) -> np.ndarray:
    """[num_queries] scores that a new leader must reach."""
    return self.scores[:, -1]


def unique_positions(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The examples among positions, each once.

  Args:
    positions: any shape; `NO_POSITION` where there is no example.

  Returns:
    The positions in increasing order, and where each of the given ones is among
    them; one past the last for `NO_POSITION`.
  """
  unique, places = np.unique(positions, return_inverse=True)
  known = unique[unique != NO_POSITION]
  return known, places.reshape(positions.shape)


def with_scores(
  leaders: Leaders, scores: np.ndarray, positions: np.ndarray
) -> Leaders:
  """Leaders of one query, with those of some more scores.

  Args:
    leaders: of a single query.
    scores: [num_rows] float32.
    positions: [num_rows] int64.
  """
  k = leaders.scores.shape[1]
  if len(scores) > k:
    least = np.partition(scores, -k)[-k]
    chosen = scores >= max(least, leaders.thresholds[0])
    scores, positions = scores[chosen], positions[chosen]
  return merge([leaders, Leaders(scores[None], positions[None])], k)


def merge(parts: Sequence[Leaders], k: int) -> Leaders:
  """The k leaders of several sets of examples, in whatever order they come."""
  scores = np.concatenate([part.scores for part in parts], axis=1)
  positions = np.concatenate([part.positions for part in parts], axis=1)
  order = np.lexsort((positions, -scores), axis=1)[:, :k]
  return Leaders(
    np.take_along_axis(scores, order, axis=1),
    np.take_along_axis(positions, order, axis=1),
  )


class TopKScan:
  """Leaders at both ends of queries over the rows seen so far."""

  def __init__(
    self,
    queries: np.ndarray,
    query_norms: np.ndarray,
    k: int,
    *,
    both_ends: bool = True,
    parts: Sequence[slice] = exact_sums.ALL_COLUMNS,
  ):
    """Has seen nothing yet.

    Args:
      queries: [num_queries, dim] float32; a score is the sum of the inner
        products with a row over each part, times the scale that the row has
        there.
      query_norms: [num_queries] such that |score| is at most a row's bound
        times the query's norm.
      k: leaders wanted at each end.
      both_ends: whether the lowest are wanted too.
      parts: of the columns.
    """
    self._tiles = [
      _Tile(queries[tile], query_norms[tile], k, both_ends, parts)
      for tile in (
        slice(start, start + _TILE_QUERIES)
        for start in range(0, len(queries), _TILE_QUERIES)
      )
    ]

  def add(
    self,
    rows: np.ndarray,
    positions: np.ndarray,
    *,
    bounds: np.ndarray,
    scales: np.ndarray | None = None,
  ) -> None:
    """Takes in rows that have not been seen.

    Args:
      rows: [num_rows, dim] float32.
      positions: [num_rows] int64.
      bounds: [num_rows] float32, of rows with their scales.
      scales: [num_rows, num_parts] float32; None for 1.
    """
    if not len(rows):
      return
    for tile in self._tiles:
      tile.add(rows, positions, bounds, scales)

  def highest(self) -> Leaders:
    """Proponents."""
    return _stacked([tile.ends[0] for tile in self._settled()])

  def lowest(self) -> Leaders:
    """Opponents, with the signs of their scores turned."""
    return _stacked([tile.ends[1] for tile in self._settled()])

  def _settled(self) -> list['_Tile']:
    for tile in self._tiles:
      tile.settle()
    return self._tiles


def _stacked(parts: Sequence[Leaders]) -> Leaders:
  return Leaders(
    np.concatenate([part.scores for part in parts]),
    np.concatenate([part.positions for part in parts]),
  )


class _Tile:
  """Some of the queries, and candidates that have not been merged yet."""

  def __init__(
    self,
    queries: np.ndarray,
    norms: np.ndarray,
    k: int,
    both_ends: bool,
    parts: Sequence[slice],
  ):
    self._queries = queries
    self._parts = parts
    self._norms = norms
    self._k = k
    self._signs = (1, -1) if both_ends else (1,)
    self.ends = [Leaders.none(len(queries), k) for _ in self._signs]
    self._candidates: list[tuple[np.ndarray, ...]] = []
    self._num_candidates = 0

  def add(self, rows, positions, bounds, scales) -> None:
    """Takes in rows; their scores are computed only if they can matter.

    Two inequalities keep the answer exact. Before the product: |score| <= norm
    of the query * bound of the row (Cauchy-Schwarz), so that a row with bound <
    threshold / norm for every query and both ends changes nothing. After it:
    |float32 score - exact score| <= margin, the rounding of a sum of `dim`
    products of at most norm * bound, so that scores below threshold - margin
    change nothing either. All others are summed again in float64 and become
    candidates.
    """
    highest = self.ends[0].thresholds
    # Nothing reaches an end that is not wanted.
    lowest = (
      self.ends[1].thresholds
      if len(self.ends) > 1
      else np.full_like(highest, np.inf)
    )
    # A row below this reaches neither end of any query.
    reach = np.minimum(highest, lowest) / np.maximum(self._norms, _TINY)
    possible = bounds * (1 + _ROUNDING * len(rows[0])) >= reach.min()
    if possible.mean() < _WORTH_COPYING:
      chosen = np.flatnonzero(possible)
      rows, positions, bounds = rows[chosen], positions[chosen], bounds[chosen]
      scales = None if scales is None else scales[chosen]
    if not len(rows):
      return
    left = exact_sums.scaled(rows, scales, self._parts)
    scores = host_products.matmul(self._queries, left.T)  # [queries, rows]
    margins = self._norms * bounds.max() * (_ROUNDING * len(rows[0]))
    if highest.min() == -np.inf and len(rows) > self._k:
      # At first no leader limits the candidates; those of the block do.
      ends = np.partition(scores, (self._k - 1, len(rows) - self._k), axis=1)
      highest = np.maximum(highest, ends[:, -self._k] - margins)
      lowest = np.maximum(lowest, -ends[:, self._k - 1] - margins)
    numbers, columns = _outside(scores, highest - margins, margins - lowest)
    if not len(numbers):
      return
    exact = exact_sums.exact_scores(
      rows, columns, self._queries, numbers, scales, self._parts
    )
    self._candidates.append((numbers, exact, positions[columns]))
    self._num_candidates += len(numbers)
    if self._num_candidates > self._k * len(self._queries):
      self.settle()

  def settle(self) -> None:
    """Merges the candidates."""
    if not self._candidates:
      return
    numbers, scores, positions = (
      np.concatenate(parts) for parts in zip(*self._candidates, strict=True)
    )
    self._candidates, self._num_candidates = [], 0
    order = np.argsort(numbers, kind='stable')
    numbers, scores, positions = numbers[order], scores[order], positions[order]
    firsts = np.searchsorted(numbers, np.arange(len(self._queries)))
    places = np.arange(len(numbers)) - firsts[numbers]
    for end, sign in enumerate(self._signs):
      new = Leaders.none(len(self._queries), int(places.max()) + 1)
      new.scores[numbers, places] = sign * scores
      new.positions[numbers, places] = positions
      self.ends[end] = merge([self.ends[end], new], self._k)


_TINY = np.finfo(np.float32).tiny


def _outside(
  scores: np.ndarray, above: np.ndarray, below: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Row and column numbers of scores >= above or <= below of their row."""
  found = scores >= above[:, None]
  found |= scores <= below[:, None]
  rows, columns = np.nonzero(found)
  return rows, columns
