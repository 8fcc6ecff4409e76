"""Rows of an index that can be found, in blocks with all that scoring needs."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from influence_core import types
from influence_core.devices import memory as device_memory
from influence_core.scores import (
  influence as influence_scores,
  rounding as score_errors,
)
from influence_core.scores.options import ScoreOptions
from pipeline.index import block_reader, reader as index_reader, shard_files
from pipeline.search import row_filter, selection as selection_lib

_NORM_COLUMN = 'squared_gradient_norm'
# Of an example's id as Python text, in a list.
_ID_BYTES = 120


def check_selection(
  index: index_reader.Index, selection: selection_lib.Selection
) -> None:
  """Checks a selection against the columns that there are.

  Raises:
    errors.InputError: The condition cannot be used or a column is missing.
  """
  if selection.where is not None:
    row_filter.RowFilter(selection.where, index.schema)
  if selection.group_by is not None:
    index.check_column(selection.group_by)


@dataclasses.dataclass(frozen=True)
class ScoredRows:
  """Rows to score, with what their scores need.

  Attributes:
    vectors: [num_rows, projection_dim] float32.
    positions: [num_rows] int64.
    self_influence: [num_rows] float32, normalised as the options say.
    bounds: [num_rows] float32, of scores before scales: |score| <= bound times
      the norm of the query.
    scales: [num_rows] float32, or None for 1.
    error_factors: [num_rows] float32, see `scores.rounding`; None where
      they were not asked for.
    groups: [num_rows] values of the column to group by, or None.
  """

  vectors: np.ndarray
  positions: np.ndarray
  self_influence: np.ndarray
  bounds: np.ndarray
  scales: np.ndarray | None = None
  error_factors: np.ndarray | None = None
  groups: np.ndarray | None = None

  def take(self, chosen: np.ndarray) -> 'ScoredRows':
    """The rows at some places."""
    values = (
      getattr(self, field.name) for field in dataclasses.fields(ScoredRows)
    )
    return ScoredRows(
      *(x if x is None else x[chosen] for x in values)  # type: ignore[arg-type]
    )


class Scorer:
  """Makes `ScoredRows` of the blocks of an index."""

  def __init__(
    self,
    index: index_reader.Index,
    options: ScoreOptions,
    *,
    with_errors: bool = False,
  ):
    """Says what is to be scored.

    Args:
      index: opened index.
      options: how to score.
      with_errors: whether `error_factors` are wanted.
    """
    if options.normalization == 'cosine':
      index.check_eigenvectors("normalization 'cosine'")
    self.weights = index.column_weights(options)
    self._normalization = options.normalization
    self._column_scales = index.codec.column_scales
    self._with_errors = with_errors
    self._is_exact = index.codec.is_exact

  @property
  def columns(self) -> tuple[str, ...]:
    """Columns of the rows that `score` needs."""
    needed = []
    if self._normalization == 'gradient_norm':
      needed.append(_NORM_COLUMN)
    if self._with_errors and not self._is_exact:
      needed.append(shard_files.ERROR_COLUMN)
    return tuple(needed)

  def score(self, block: block_reader.ReadBlock) -> ScoredRows:
    """The rows of a block that has those columns."""
    own = influence_scores.self_influence(block.vectors, self.weights)
    squared_norms = np.empty(0, np.float32)
    if self._normalization == 'gradient_norm':
      squared_norms = block.rows[_NORM_COLUMN].to_numpy()
    return ScoredRows(
      block.vectors,
      np.arange(block.first, block.first + len(own)),
      influence_scores.normalized_self_influence(
        own, squared_norms, self._normalization
      ),
      np.sqrt(own),
      influence_scores.row_scales(own, squared_norms, self._normalization),
      self._error_factors(block, own, squared_norms),
    )

  def _error_factors(self, block, own, squared_norms) -> np.ndarray | None:
    if not self._with_errors:
      return None
    if self._is_exact:
      return np.zeros(len(own), np.float32)
    return score_errors.row_factors(
      block.rows[shard_files.ERROR_COLUMN].to_numpy(),
      own,
      squared_norms,
      weights=self.weights,
      column_scales=self._column_scales,
      normalization=self._normalization,
    )


def squared_norms_at(
  index: index_reader.Index, positions: np.ndarray, options: ScoreOptions
) -> np.ndarray:
  """[len(positions)] float32; empty where the normalisation needs none."""
  if options.normalization != 'gradient_norm':
    return np.empty(0, np.float32)
  return index.rows(positions, [_NORM_COLUMN])[_NORM_COLUMN].to_numpy()


def scored_rows(
  index: index_reader.Index,
  scorer: Scorer,
  selection: selection_lib.Selection,
  *,
  shard_numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[ScoredRows]:
  """The rows that can be found, block by block.

  Args:
    index: opened index.
    scorer: of that index.
    selection: which rows.
    shard_numbers: of the shards to read; None for all.
    progress: called with the number of examples read.
  """
  matches = None
  columns = scorer.columns
  if selection.where is not None:
    matches = row_filter.RowFilter(selection.where, index.schema).matches
    columns = tuple(index.schema.names)
  if selection.group_by is not None:
    columns = (*columns, selection.group_by)
  for block in index.read_blocks(
    columns=columns, numbers=shard_numbers, progress=progress
  ):
    rows = scorer.score(block)
    if selection.group_by is not None:
      groups = np.array(block.rows[selection.group_by].to_pylist(), object)
      rows = dataclasses.replace(rows, groups=groups)
    yield rows if matches is None else rows.take(matches(block.rows))


def all_scores(
  index: index_reader.Index,
  query_projections: np.ndarray,
  options: ScoreOptions,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> tuple[np.ndarray, list[str]]:
  """Influence of every example on every query, for indexes that fit memory.

  Args:
    index: opened index.
    query_projections: [num_queries, projection_dim].
    options: how to score.
    progress: called with the number of examples scored.

  Returns:
    [num_queries, num_examples] float32, and the ids of the examples.

  Raises:
    errors.InputError: They do not fit memory.
  """
  size = index.num_examples
  device_memory.check_host_memory(
    # Scores by block and joined, as numbers of twice the size for evaluations.
    size * (4 * 4 * len(query_projections) + _ID_BYTES),
    f'scores of {size:,} examples for {len(query_projections):,} queries',
    'take fewer queries at a time',
  )
  scorer = Scorer(index, options)
  queries = index.weight_queries(query_projections, options)
  parts, ids = [], []
  for block in index.read_blocks(
    columns=('id', *scorer.columns), progress=progress
  ):
    rows = scorer.score(block)
    scores = queries @ rows.vectors.T
    parts.append(scores if rows.scales is None else scores * rows.scales)
    ids += block.rows['id'].to_pylist()
  return np.concatenate(parts, axis=1), ids


def by_group(rows: ScoredRows) -> Iterator[tuple[object, ScoredRows]]:
  """Rows by value of the column to group by; None for all without one."""
  if rows.groups is None:
    yield None, rows
    return
  for value in dict.fromkeys(rows.groups):
    yield value, rows.take(rows.groups == value)
