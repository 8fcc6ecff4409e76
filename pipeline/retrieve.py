"""Retrieval: one pass over the shards of a published generation.

Finds the proponents and opponents of many queries, and the examples with the
highest self-influence, exactly and in bounded memory. Examples are numbered by
their position in the manifest; ties are broken by it, so that the answer does
not depend on the number of shards.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses

import numpy as np
import pyarrow as pa

from influence_core import errors, influence_scores, top_k, types
from pipeline import index_reader, row_blocks

NO_POSITION = top_k.NO_POSITION


@dataclasses.dataclass(frozen=True)
class TopExamples:
  """The leading examples of each query, best first.

  Attributes:
    scores: [num_queries, k] float32.
    positions: [num_queries, k] int64, of examples in the manifest;
      `NO_POSITION` where fewer were found, always last.
  """

  scores: np.ndarray
  positions: np.ndarray


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
  index: index_reader.Index,
  query_projections: np.ndarray,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  selection: row_blocks.Selection = row_blocks.EVERYTHING,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, Found]:
  """The k strongest proponents and opponents of each query.

  Args:
    index: opened index.
    query_projections: [num_queries, projection_dim], unscaled.
    k: examples wanted at each end; fewer come back from a smaller index.
    options: how to score.
    selection: which examples can be found.
    progress: called with the number of examples scored.

  Returns:
    What was found, by value of the column to group by; of key None without.

  Raises:
    errors.InputError: k, the width of the projections or the selection does
      not fit.
  """
  leaders = scan(
    index,
    query_projections,
    k=k,
    options=options,
    selection=selection,
    progress=progress,
  )
  return found(index, leaders, k=k, selection=selection)


@dataclasses.dataclass(frozen=True)
class Leading:
  """Leaders among some shards; `merged` puts them together.

  Attributes:
    highest: by score.
    lowest: by score with its sign turned.
    own: by self-influence, as of a single query.
  """

  highest: top_k.Leaders
  lowest: top_k.Leaders
  own: top_k.Leaders


def scan(
  index: index_reader.Index,
  query_projections: np.ndarray,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  selection: row_blocks.Selection = row_blocks.EVERYTHING,
  shard_numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> dict[object, Leading]:
  """Leaders among some shards, by value of the column to group by.

  Args: those of `search`, and
    shard_numbers: of the shards to read, in increasing order; None for all.
  """
  check(index, query_projections, k, selection)
  weights = influence_scores.inverse_eigenvalues(index.eigenvalues, options)
  queries = influence_scores.weight_queries(
    query_projections, index.eigenvalues, options
  )
  norms = influence_scores.query_norms(queries, weights)
  num_leaders = _num_leaders(k, selection)
  scans: dict[object, _Scan] = {}
  if selection.group_by is None:
    scans[None] = _Scan(queries, norms, num_leaders)
  for block in row_blocks.row_blocks(
    index,
    weights,
    options,
    selection,
    shard_numbers=shard_numbers,
    progress=progress,
  ):
    for value, part in row_blocks.by_group(block, selection.group_by):
      if value not in scans:
        scans[value] = _Scan(queries, norms, num_leaders)
      scans[value].add(part)
  return {value: scan.leading() for value, scan in scans.items()}


def check(
  index: index_reader.Index,
  query_projections: np.ndarray,
  k: int,
  selection: row_blocks.Selection,
) -> None:
  """Checks the arguments of a search against an index.

  Raises:
    errors.InputError: k, the width of the projections or the selection does
      not fit.
  """
  _check_k(k)
  row_blocks.check_selection(index, selection)
  dim = len(index.eigenvalues)
  if query_projections.ndim != 2 or query_projections.shape[1] != dim:
    raise errors.InputError(
      f'queries have shape {query_projections.shape}, expected {dim} '
      'coordinates each, the projection_dim of the index'
    )


def merged(
  parts: Iterable[Mapping[object, Leading]],
  *,
  k: int,
  selection: row_blocks.Selection,
) -> dict[object, Leading]:
  """What `scan` would give for all shards that the parts were made of."""
  by_value: dict[object, list[Leading]] = {}
  for part in parts:
    for value, leading in part.items():
      by_value.setdefault(value, []).append(leading)
  count = _num_leaders(k, selection)
  return {
    value: Leading(
      top_k.merged([leading.highest for leading in some], count),
      top_k.merged([leading.lowest for leading in some], count),
      top_k.merged([leading.own for leading in some], count),
    )
    for value, some in by_value.items()
  }


def found(
  index: index_reader.Index,
  leaders: Mapping[object, Leading],
  *,
  k: int,
  selection: row_blocks.Selection,
) -> dict[object, Found]:
  """What `search` gives, from the leaders among all shards."""
  results = {value: _found(leading) for value, leading in leaders.items()}
  if selection.excluded_ids is not None:
    exclude = _Exclusion(index, selection.excluded_ids, k)
    results = {value: exclude(result) for value, result in results.items()}
  return results


def _num_leaders(k: int, selection: row_blocks.Selection) -> int:
  """One more where one of them may be taken out."""
  return k + (selection.excluded_ids is not None)


def _found(leading: Leading) -> Found:
  lowest = _trimmed(leading.lowest)
  return Found(
    _trimmed(leading.highest),
    TopExamples(-lowest.scores, lowest.positions),
    _trimmed(leading.own),
  )


def self_influence(
  index: index_reader.Index,
  *,
  options: influence_scores.ScoreOptions,
  columns: tuple[str, ...] = (),
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
  """Self-influence of every example, shard by shard.

  Yields:
    `(position of the first, [num_rows] float32, rows)` of each shard; rows has
    the columns asked for and those that were needed.
  """
  weights = influence_scores.inverse_eigenvalues(index.eigenvalues, options)
  columns = (*columns, *row_blocks.scale_columns(options))
  for shard in index.read_shards(columns=columns, progress=progress):
    scores = influence_scores.self_influence(shard.vectors, weights)
    if options.normalization == 'gradient_norm':
      norms = shard.rows['squared_gradient_norm'].to_numpy()
      scores = scores / np.maximum(norms, np.finfo(np.float32).tiny)
    yield shard.first, scores, shard.rows


def top_self_influence(
  index: index_reader.Index,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> TopExamples:
  """The k examples with the highest self-influence, as one 'query'."""
  _check_k(k)
  leaders = top_k.Leaders.none(1, k)
  for first, scores, _ in self_influence(
    index, options=options, progress=progress
  ):
    leaders = _with(leaders, scores, first + np.arange(len(scores)))
  return _trimmed(leaders)


class _Scan:
  """Leaders of one group of examples."""

  def __init__(self, queries: np.ndarray, norms: np.ndarray, k: int):
    self._ends = top_k.TopKScan(queries, norms, k)
    self._own = top_k.Leaders.none(1, k)

  def add(self, block: row_blocks.RowBlock) -> None:
    self._own = _with(self._own, block.self_influence, block.positions)
    self._ends.add(
      block.vectors,
      block.positions,
      bounds=np.sqrt(block.self_influence),
      scales=block.scales,
    )

  def leading(self) -> Leading:
    return Leading(self._ends.highest(), self._ends.lowest(), self._own)


class _Exclusion:
  """Takes the excluded example out of what one more than k was found."""

  def __init__(self, index: index_reader.Index, ids: tuple[str, ...], k: int):
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
    positions, inverse = np.unique(top.positions, return_inverse=True)
    known = positions[positions != NO_POSITION]
    ids = np.array([*self._index.rows(known, ['id'])['id'].to_pylist(), ''])
    inverse = np.minimum(inverse, len(known)).reshape(top.positions.shape)
    excluded = ids[inverse] == self._ids[:, None]
    order = np.argsort(excluded, axis=1, kind='stable')[:, : self._k]
    scores = np.take_along_axis(top.scores, order, axis=1)
    positions = np.take_along_axis(top.positions, order, axis=1)
    gone = np.take_along_axis(excluded, order, axis=1)
    positions[gone] = NO_POSITION
    return TopExamples(scores, positions)


def _with(
  leaders: top_k.Leaders, scores: np.ndarray, positions: np.ndarray
) -> top_k.Leaders:
  """Leaders of one query, with those of some more scores."""
  k = leaders.scores.shape[1]
  if len(scores) > k:
    least = np.partition(scores, -k)[-k]
    chosen = scores >= max(least, leaders.thresholds[0])
    scores, positions = scores[chosen], positions[chosen]
  return top_k.merged(
    [leaders, top_k.Leaders(scores[None], positions[None])], k
  )


def _trimmed(leaders: top_k.Leaders) -> TopExamples:
  """Without columns in which no query has an example."""
  used = (leaders.positions != NO_POSITION).any(axis=0)
  return TopExamples(leaders.scores[:, used], leaders.positions[:, used])


def _check_k(k: int) -> None:
  if k < 1:
    raise errors.InputError(f'k is {k}, expected at least 1')
