"""Retrieval: one pass over the shards of a published generation.

Finds the proponents and opponents of many queries, and the examples with the
highest self-influence, exactly and in bounded memory. Examples are numbered by
their position in the manifest; ties are broken by it, so that the answer does
not depend on the number of shards.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import itertools
import operator
from typing import Any

import numpy as np

from influence_core import errors, types
from influence_core.scores import top_k
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import (
  by_layer as by_layer_lib,
  error_bounds,
  scan as scan_lib,
  selection as selection_lib,
)

NO_POSITION = top_k.NO_POSITION


@dataclasses.dataclass(frozen=True)
class TopExamples:
  """The leading examples of each query, best first.

  Attributes:
    scores: [num_queries, k] float32.
    positions: [num_queries, k] int64, of examples in the manifest;
      `NO_POSITION` where fewer were found, always last.
    error_bounds: [num_queries, k] float32, what scores can differ from those of
      float32 projections, at most; None where those are stored.
    certified: [num_queries, k] bool, whether example and score are those of
      float32 projections (`certify`); None where nobody asked.
    by_layer: [num_queries, k] float64 share of each layer in the score, by its
      name; None where nobody asked.
    tokens: [num_queries, k] `by_token.Tokens` of the examples; None where
      nobody asked.
    query_tokens: the same of the queries; None where they have none.
  """

  scores: np.ndarray
  positions: np.ndarray
  error_bounds: np.ndarray | None = None
  certified: np.ndarray | None = None
  by_layer: Mapping[str, np.ndarray] | None = None
  tokens: np.ndarray | None = None
  query_tokens: np.ndarray | None = None

  def take(self, columns: np.ndarray) -> 'TopExamples':
    """[num_queries, k] other columns for each query."""
    values = (
      getattr(self, field.name) for field in dataclasses.fields(TopExamples)
    )
    return TopExamples(
      *(_map(lambda x: np.take_along_axis(x, columns, 1), x) for x in values)
    )


def _map(function: Callable[[np.ndarray], np.ndarray], value: Any) -> Any:
  """A function of an array, of those of a dictionary, or None of None."""
  if isinstance(value, Mapping):
    return {name: function(array) for name, array in value.items()}
  return None if value is None else function(value)


@dataclasses.dataclass(frozen=True)
class Found:
  """What one pass over an index found.

  Attributes:
    proponents: by decreasing score.
    opponents: by increasing score.
    self_influence: as of a single query: the examples with the highest
      influence on their own loss.
  """

  proponents: TopExamples
  opponents: TopExamples
  self_influence: TopExamples


def search(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  *,
  k: int,
  options: ScoreOptions,
  selection: selection_lib.Selection = selection_lib.EVERYTHING,
  by_layer: bool = False,
  scan: Callable[..., dict[object, scan_lib.Leading]] = scan_lib.scan,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, Found]:
  """The k strongest proponents and opponents of each query.

  Args:
    index: opened index.
    query_projections: [num_queries, projection_dim], unscaled.
    k: examples wanted at each end; fewer come back from a smaller index.
    options: how to score.
    selection: which examples can be found.
    by_layer: whether the share of each layer is wanted, too.
    scan: `scan.scan`, or the same on a Beam runner.
    progress: called with the number of examples scored.

  Returns:
    What was found, by value of the column to group by; of key None without.

  Raises:
    errors.InputError: k, the width of the projections or the selection does
      not fit, or there are no layers.
  """
  k = bounded_k(index, k)
  shares = by_layer_lib.LayerShares(index, options) if by_layer else None
  leaders = scan(
    index,
    query_projections,
    k=k,
    options=options,
    selection=selection,
    progress=progress,
  )
  if not leaders:  # Groups of nothing.
    return {}
  ends = []
  for leading in leaders.values():
    lowest = trim(leading.lowest)
    ends.append(trim(leading.highest))
    ends.append(dataclasses.replace(lowest, scores=-lowest.scores))
  found = positions_of(ends)
  bounds = error_bounds.ErrorBounds(index, options)
  ends = attach(
    ends,
    error_bounds=bounds.of_scores(query_projections, found),
    by_layer=shares and shares.of_scores(query_projections, found),
  )
  results = {
    value: Found(
      highest,
      lowest,
      most_self_influential(index, leading.own, options, shares),
    )
    for (value, leading), highest, lowest in zip(
      leaders.items(), ends[::2], ends[1::2], strict=True
    )
  }
  return exclude(index, results, k=k, selection=selection)


def no_result(num_queries: int) -> Found:
  """What is found where no example can be."""
  none = trim(top_k.Leaders.none(num_queries, 1))
  return Found(none, none, trim(top_k.Leaders.none(1, 1)))


def bounded_k(index: members_lib.Searched, k: int) -> int:
  """`k`, or the number of examples where there are fewer.

  Raises:
    errors.InputError: k is not positive.
  """
  errors.check_at_least_one(k=k)
  return min(k, max(index.num_examples, 1))


def positions_of(ends: Sequence[TopExamples]) -> np.ndarray:
  """[num_queries, k of all ends] positions, to read rows of all together."""
  return np.concatenate([x.positions for x in ends], axis=1)


def attach(ends: Sequence[TopExamples], **values: Any) -> list[TopExamples]:
  """Ends with more said of their examples.

  Args:
    ends: of the same queries.
    **values: by attribute, for the examples of `positions_of(ends)`.
  """
  edges = np.cumsum([0, *(x.positions.shape[1] for x in ends)]).tolist()
  attached = []
  for end, (start, stop) in zip(ends, itertools.pairwise(edges), strict=True):
    more = {
      name: _map(operator.itemgetter(np.s_[:, start:stop]), value)
      for name, value in values.items()
    }
    attached.append(dataclasses.replace(end, **more))
  return attached


def most_self_influential(
  index: members_lib.Searched,
  leaders: top_k.Leaders,
  options: ScoreOptions,
  shares: by_layer_lib.LayerShares | None = None,
) -> TopExamples:
  """Leaders by self-influence, as of a single query.

  Args:
    index: opened index.
    leaders: by self-influence.
    options: how they were scored.
    shares: gives those of layers; None for none of them.

  Returns:
    The leaders with error bounds, and with shares of layers.
  """
  top = trim(leaders)
  bounds = error_bounds.ErrorBounds(index, options).of_self_influence(
    top.scores, top.positions
  )
  by_layer = None if shares is None else shares.of_self_influence(top.positions)
  return dataclasses.replace(top, error_bounds=bounds, by_layer=by_layer)


def trim(leaders: top_k.Leaders) -> TopExamples:
  """Leaders without columns in which no query has an example."""
  used = (leaders.positions != NO_POSITION).any(axis=0)
  return TopExamples(leaders.scores[:, used], leaders.positions[:, used])


def exclude(
  index: members_lib.Searched,
  results: dict[object, Found],
  *,
  k: int,
  selection: selection_lib.Selection,
) -> dict[object, Found]:
  """Takes the excluded example out of what one more than k was found."""
  if selection.excluded_ids is None:
    return results
  exclude = _Exclusion(index, selection.excluded_ids, k)
  return {value: exclude(result) for value, result in results.items()}


class _Exclusion:
  """Takes the excluded example out of what one more than k was found."""

  def __init__(self, index: members_lib.Searched, ids: tuple[str, ...], k: int):
    self._index = index
    self._ids = np.array(ids)
    self._k = k

  def __call__(self, found: Found) -> Found:
    return dataclasses.replace(
      found,
      proponents=self._without(found.proponents),
      opponents=self._without(found.opponents),
    )

  def _without(self, top: TopExamples) -> TopExamples:
    known, places = top_k.unique_positions(top.positions)
    ids = np.array([*self._index.rows(known, ['id'])['id'].to_pylist(), ''])
    excluded = ids[places] == self._ids[:, None]
    order = np.argsort(excluded, axis=1, kind='stable')[:, : self._k]
    left = top.take(order)
    left.positions[np.take_along_axis(excluded, order, axis=1)] = NO_POSITION
    return left
