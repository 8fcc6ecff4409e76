"""Rows of an index that can be found, in blocks with all that scoring needs."""

from collections.abc import Iterator, Sequence
import dataclasses

import numpy as np

from influence_core import influence_scores, types
from pipeline import index_reader, row_filter

# Rows scored at a time: the scores of 256 queries then stay within the cache.
_BLOCK_ROWS = 1 << 13


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which examples can be found.

  Attributes:
    where: SQL condition on the columns of the rows; None for all.
    group_by: column; the leaders of each of its values are found apart.
    excluded_ids: [num_queries] an id that is not found for each query, as for
      queries that are training examples themselves; None for no such.
  """

  where: str | None = None
  group_by: str | None = None
  excluded_ids: tuple[str, ...] | None = None


EVERYTHING = Selection()


def check_selection(index: index_reader.Index, selection: Selection) -> None:
  """Checks a selection against the columns that there are.

  Raises:
    errors.InputError: The condition cannot be used or a column is missing.
  """
  if selection.where is not None:
    row_filter.RowFilter(selection.where, index.schema)
  if selection.group_by is not None:
    index.check_column(selection.group_by)


@dataclasses.dataclass(frozen=True)
class RowBlock:
  """Rows to score, with what their scores need.

  Attributes:
    vectors: [num_rows, projection_dim] float32.
    positions: [num_rows] int64.
    self_influence: [num_rows] float32.
    scales: [num_rows] float32, or None.
    groups: [num_rows] values of the column to group by, or None.
  """

  vectors: np.ndarray
  positions: np.ndarray
  self_influence: np.ndarray
  scales: np.ndarray | None
  groups: np.ndarray | None

  def take(self, chosen: np.ndarray) -> 'RowBlock':
    return RowBlock(
      *(
        None if value is None else value[chosen]
        for value in (
          self.vectors,
          self.positions,
          self.self_influence,
          self.scales,
          self.groups,
        )
      )  # type: ignore[arg-type]
    )


def row_blocks(
  index: index_reader.Index,
  weights: np.ndarray,
  options: influence_scores.ScoreOptions,
  selection: Selection,
  *,
  shard_numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[RowBlock]:
  """The rows that can be found, block by block.

  Args:
    index: opened index.
    weights: [projection_dim], from `influence_scores.inverse_eigenvalues`.
    options: how to score.
    selection: which rows.
    shard_numbers: of the shards to read; None for all.
    progress: called with the number of examples read.
  """
  matches = None
  columns = scale_columns(options)
  if selection.where is not None:
    matches = row_filter.RowFilter(selection.where, index.schema).matches
    columns = tuple(index.schema.names)
  if selection.group_by is not None:
    columns = (*columns, selection.group_by)
  for shard in index.read_shards(
    columns=columns, numbers=shard_numbers, progress=progress
  ):
    for start in range(0, len(shard.vectors), _BLOCK_ROWS):
      vectors = shard.vectors[start : start + _BLOCK_ROWS]
      rows = shard.rows.slice(start, len(vectors))
      block = _make_block(vectors, rows, shard.first + start, weights, options)
      if selection.group_by is not None:
        groups = np.array(rows[selection.group_by].to_pylist(), object)
        block = dataclasses.replace(block, groups=groups)
      yield block if matches is None else block.take(matches(rows))


def _make_block(vectors, rows, first: int, weights, options) -> RowBlock:
  own = influence_scores.self_influence(vectors, weights)
  norms = np.empty(0)
  if options.normalization == 'gradient_norm':
    norms = rows['squared_gradient_norm'].to_numpy()
  return RowBlock(
    vectors,
    np.arange(first, first + len(vectors)),
    own,
    influence_scores.row_scales(own, norms, options.normalization),
    None,
  )


def by_group(
  block: RowBlock, group_by: str | None
) -> Iterator[tuple[object, RowBlock]]:
  if group_by is None or block.groups is None:
    yield None, block
    return
  for value in dict.fromkeys(block.groups):
    yield value, block.take(block.groups == value)


def scale_columns(options: influence_scores.ScoreOptions) -> tuple[str, ...]:
  by_norm = options.normalization == 'gradient_norm'
  return ('squared_gradient_norm',) if by_norm else ()
