"""Retrieval: one pass over the shards of a published generation.

Finds the proponents and opponents of many queries, or the examples with the
highest self-influence, exactly and in bounded memory. Examples are numbered by
their position in the manifest; ties are broken by it, so that the answer does
not depend on the number of shards.
"""

from collections.abc import Iterable, Iterator
import concurrent.futures
import dataclasses

import numpy as np
import pyarrow as pa

from influence_core import errors, influence_scores, types
from pipeline import index_format, storage
from pipeline import manifest as manifest_lib

# Rows scored at a time: the scores of 256 queries then stay within the cache.
_BLOCK_ROWS = 1 << 14


@dataclasses.dataclass(frozen=True)
class TopExamples:
  """The leading examples of each query, best first.

  Attributes:
    scores: [num_queries, k] float32.
    positions: [num_queries, k] int64, of examples in the manifest.
  """

  scores: np.ndarray
  positions: np.ndarray


class Index:
  """A published generation, opened for reading."""

  def __init__(self, path: str):
    """Opens the newest generation of the index at `path`.

    Raises:
      errors.InputError: Nothing is published there.
      storage.DamagedFileError: The manifest is damaged.
    """
    self.path = storage.absolute(path)
    self.manifest = manifest_lib.load(self.path)

  @property
  def num_examples(self) -> int:
    return self.manifest.num_examples

  @property
  def eigenvalues(self) -> np.ndarray:
    return np.asarray(self.manifest.provenance.eigenvalues)

  def read_shards(
    self, progress: types.ProgressCallback = types.no_progress
  ) -> Iterator[tuple[int, index_format.ShardContent]]:
    """Checked shards with the position of their first row, in order.

    The next shard is read while the caller works on this one.
    """
    shards = self.manifest.shards
    with concurrent.futures.ThreadPoolExecutor(1) as reader:
      contents = (
        reader.submit(index_format.read_shard, self.path, shard)
        for shard in shards
      )
      pending = next(contents)
      first = 0
      for shard in shards:
        content = pending.result()
        pending = next(contents, pending)
        yield first, content
        first += shard.num_written
        progress(first, self.num_examples)

  def rows_at(self, positions: Iterable[int]) -> dict[int, dict]:
    """Rows (id, loss, columns) of examples by their position."""
    wanted = np.unique(np.fromiter(positions, np.int64))
    starts = np.cumsum([0, *(x.num_written for x in self.manifest.shards)])
    owners = np.searchsorted(starts, wanted, side='right') - 1
    rows: dict[int, dict] = {}
    for owner in np.unique(owners).tolist():
      shard = self.manifest.shards[owner]
      mine = wanted[owners == owner]
      table = index_format.read_rows(self.path, shard)
      table = table.take(pa.array(mine - starts[owner]))
      rows |= dict(zip(mine.tolist(), table.to_pylist(), strict=True))
    return rows


def top_k(
  index: Index,
  query_projections: np.ndarray,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> tuple[TopExamples, TopExamples]:
  """The k strongest proponents and opponents of each query.

  Args:
    index: opened index.
    query_projections: [num_queries, projection_dim], unscaled.
    k: examples wanted at each end; fewer come back from a smaller index.
    options: how to score.
    progress: called with the number of examples scored.

  Returns:
    Proponents, by decreasing score, and opponents, by increasing score.

  Raises:
    errors.InputError: k or the width of the projections does not fit.
  """
  _check_k(k)
  if query_projections.shape[1] != len(index.eigenvalues):
    raise errors.InputError(
      f'queries have {query_projections.shape[1]} coordinates, expected '
      f'{len(index.eigenvalues)}, the projection_dim of the index'
    )
  weights = influence_scores.inverse_eigenvalues(index.eigenvalues, options)
  queries = influence_scores.weight_queries(
    query_projections, index.eigenvalues, options
  )
  proponents = _Leaders(len(queries), k)
  opponents = _Leaders(len(queries), k)
  for first, content in index.read_shards(progress):
    norms = content.rows['squared_gradient_norm'].to_numpy()
    for start in range(0, len(norms), _BLOCK_ROWS):
      block = slice(start, start + _BLOCK_ROWS)
      scores = influence_scores.influence(
        content.vectors[block],
        norms[block],
        weighted_queries=queries,
        weights=weights,
        normalization=options.normalization,
      )  # [num_queries, block]
      proponents.add(scores, first + start)
      opponents.add(-scores, first + start)
  worst = opponents.result()
  return proponents.result(), TopExamples(-worst.scores, worst.positions)


def self_influence(
  index: Index,
  *,
  options: influence_scores.ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
  """Self-influence of every example, shard by shard.

  Yields:
    `(position of the first, [num_rows] float32, rows)` of each shard.
  """
  weights = influence_scores.inverse_eigenvalues(index.eigenvalues, options)
  for first, content in index.read_shards(progress):
    scores = influence_scores.self_influence(content.vectors, weights)
    if options.normalization == 'gradient_norm':
      norms = content.rows['squared_gradient_norm'].to_numpy()
      scores = scores / np.maximum(norms, np.finfo(np.float32).tiny)
    yield first, scores, content.rows


def top_self_influence(
  index: Index,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> TopExamples:
  """The k examples with the highest self-influence, as one 'query'."""
  _check_k(k)
  leaders = _Leaders(1, k)
  for first, scores, _ in self_influence(
    index, options=options, progress=progress
  ):
    leaders.add(scores[None], first)
  return leaders.result()


class _Leaders:
  """The k highest scores seen so far of each query."""

  def __init__(self, num_queries: int, k: int):
    self._k = k
    self._scores = [np.empty(0, np.float32)] * num_queries
    self._positions = [np.empty(0, np.int64)] * num_queries

  def add(self, scores: np.ndarray, first: int) -> None:
    """Takes in [num_queries, num_rows] scores of consecutive positions."""
    for query, row in enumerate(scores):
      best, positions = self._scores[query], self._positions[query]
      # Only what beats the last of k leaders can enter; a tie cannot, since
      # the leader has the lower position.
      if len(best) == self._k:
        candidates = np.flatnonzero(row > best[-1])
      else:
        candidates = np.arange(len(row))
      if len(candidates) > self._k:
        threshold = np.partition(row[candidates], -self._k)[-self._k]
        candidates = candidates[row[candidates] >= threshold]
      best = np.concatenate([best, row[candidates]])
      positions = np.concatenate([positions, first + candidates])
      order = np.lexsort((positions, -best))[: self._k]
      self._scores[query], self._positions[query] = (
        best[order],
        positions[order],
      )

  def result(self) -> TopExamples:
    return TopExamples(np.stack(self._scores), np.stack(self._positions))


def _check_k(k: int) -> None:
  if k < 1:
    raise errors.InputError(f'k is {k}, expected at least 1')
