"""Self-influence of every example, and the examples with the highest."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from influence_core import types
from influence_core.scores import top_k
from influence_core.scores.options import ScoreOptions
from pipeline.index import in_step, members as members_lib
from pipeline.search import (
  by_layer as by_layer_lib,
  retrieve,
  row_blocks,
  selection as selection_lib,
)


def scores(
  index: members_lib.Searched,
  *,
  options: ScoreOptions,
  columns: tuple[str, ...] = (),
  shard_numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
  """Self-influence of every example, block by block.

  Args:
    index: that is searched.
    options: how to score.
    columns: columns of the rows that are wanted.
    shard_numbers: of the shards of the first member to read, in increasing
      order; None for all.
    progress: called with the number of examples scored.

  Yields:
    `(position of the first, [num_rows] float32, rows)` of each block; rows has
    the columns asked for and those that were needed.
  """
  scorer = row_blocks.Scorer(index, options)
  first, *others = scorer.columns
  for blocks in in_step.read_in_step(
    index,
    [(*columns, *first), *others],
    numbers=shard_numbers,
    progress=progress,
  ):
    rows = scorer.score(blocks)
    yield blocks[0].first, rows.self_influence, blocks[0].rows


def top(
  index: members_lib.Searched,
  *,
  k: int,
  options: ScoreOptions,
  selection: selection_lib.Selection = selection_lib.EVERYTHING,
  by_layer: bool = False,
  progress: types.ProgressCallback = types.no_progress,
) -> retrieve.TopExamples:
  """The k examples with the highest self-influence, as of one query.

  Args:
    index: that is searched.
    k: examples wanted; fewer come back from a smaller index.
    options: how to score.
    selection: which examples can be found; its groups are not looked at.
    by_layer: whether the share of each layer is wanted, too.
    progress: called with the number of examples scored.

  Raises:
    errors.InputError: k or the selection does not fit, or the index has none,
      or no layers.
  """
  k = retrieve.bounded_k(index, k)
  index.check_eigenvectors('self-influence')
  shares = by_layer_lib.LayerShares(index, options) if by_layer else None
  leaders = top_k.Leaders.none(1, k)
  for rows in row_blocks.scored_rows(
    index, row_blocks.Scorer(index, options), selection, progress=progress
  ):
    leaders = top_k.with_scores(leaders, rows.self_influence, rows.positions)
  return retrieve.most_self_influential(index, leaders, options, shares)
