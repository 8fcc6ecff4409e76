"""Rows of an index that can be found, in blocks with all that scoring needs."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from influence_core import types
from influence_core.devices import memory as device_memory
from influence_core.scores import (
  exact_sums,
  influence as influence_scores,
)
from influence_core.scores.options import ScoreOptions
from pipeline.index import block_reader, in_step, members as members_lib
from pipeline.search import (
  error_bounds,
  member_rows,
  row_filter,
  selection as selection_lib,
)

# Of an example's id as Python text, in a list.
_ID_BYTES = 120


def check_selection(
  index: members_lib.Searched, selection: selection_lib.Selection
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
    vectors: [num_rows, projection_dim] float32, of all members.
    positions: [num_rows] int64.
    self_influence: [num_rows] float32, normalised as the options say.
    bounds: [num_rows] float32: |score| <= bound times the norm of the query.
    scales: [num_rows, num_members] float32, or None for 1.
    error_factors: [num_rows, num_members] float32, see `scores.rounding`; None
      where they were not asked for.
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
  """Makes `ScoredRows` of the blocks of all members.

  Attributes:
    columns: of the rows that are needed, of each member.
  """

  def __init__(
    self,
    index: members_lib.Searched,
    options: ScoreOptions,
    *,
    with_errors: bool = False,
  ):
    """Says what is to be scored.

    Args:
      index: that is searched.
      options: how to score.
      with_errors: whether `error_factors` are wanted.
    """
    self._rows = member_rows.MemberRows(index, options)
    self._normalization = options.normalization
    self._member_scales = np.array([x.scale for x in index.members], np.float32)
    self._errors = None
    self.columns = [self._rows.columns for _ in index.members]
    if with_errors:
      self._errors = error_bounds.ErrorFactors(index, options)
      self.columns = [
        (*columns, *more)
        for columns, more in zip(
          self.columns, self._errors.columns, strict=True
        )
      ]

  def score(self, blocks: Sequence[block_reader.ReadBlock]) -> ScoredRows:
    """The rows of blocks of the same examples, which have those columns."""
    vectors = in_step.joined([block.vectors for block in blocks], axis=1)
    squared_norms = self._rows.squared_norms(blocks)
    own = self._rows.self_influences(vectors)
    scales = self._rows.scales(own, squared_norms)
    normalized = influence_scores.normalized_self_influence(
      own, squared_norms, self._normalization
    )
    # Of each member, in the norm that its weights and its scale make.
    norms = np.sqrt(own) * np.sqrt(self._member_scales)
    if scales is not None:
      norms *= scales
    factors = None
    if self._errors is not None:
      tables = [block.rows for block in blocks]
      factors = self._errors.of_rows(tables, own, squared_norms)
    first = blocks[0].first
    return ScoredRows(
      vectors,
      np.arange(first, first + len(vectors)),
      (normalized * self._member_scales).sum(axis=1),
      np.hypot.reduce(norms, axis=1),
      scales,
      factors,
    )


def scored_rows(
  index: members_lib.Searched,
  scorer: Scorer,
  selection: selection_lib.Selection,
  *,
  shard_numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[ScoredRows]:
  """The rows that can be found, block by block.

  Args:
    index: that is searched.
    scorer: of that index.
    selection: which rows.
    shard_numbers: of the shards of the first member to read; None for all.
    progress: called with the number of examples read.
  """
  matches = None
  first, *others = scorer.columns
  if selection.where is not None:
    matches = row_filter.RowFilter(selection.where, index.schema).matches
    first = (*first, *index.schema.names)
  if selection.group_by is not None:
    first = (*first, selection.group_by)
  for blocks in in_step.read_in_step(
    index, [first, *others], numbers=shard_numbers, progress=progress
  ):
    rows, table = scorer.score(blocks), blocks[0].rows
    if selection.group_by is not None:
      groups = np.array(table[selection.group_by].to_pylist(), object)
      rows = dataclasses.replace(rows, groups=groups)
    yield rows if matches is None else rows.take(matches(table))


def all_scores(
  index: members_lib.Searched,
  query_projections: np.ndarray,
  options: ScoreOptions,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> tuple[np.ndarray, list[str]]:
  """Influence of every example on every query, for indexes that fit memory.

  Args:
    index: that is searched.
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
  member_parts = members_lib.parts_of(index)
  first, *others = scorer.columns
  parts, ids = [], []
  for blocks in in_step.read_in_step(
    index, [('id', *first), *others], progress=progress
  ):
    rows = scorer.score(blocks)
    left = exact_sums.scaled(rows.vectors, rows.scales, member_parts)
    parts.append(queries @ left.T)
    ids += blocks[0].rows['id'].to_pylist()
  return np.concatenate(parts, axis=1), ids


def by_group(rows: ScoredRows) -> Iterator[tuple[object, ScoredRows]]:
  """Rows by value of the column to group by; None for all without one."""
  if rows.groups is None:
    yield None, rows
    return
  for value in dict.fromkeys(rows.groups):
    yield value, rows.take(rows.groups == value)
