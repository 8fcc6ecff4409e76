"""Self-influence of every example, and the examples with the highest."""

from collections.abc import Iterator
import dataclasses

import numpy as np
import pyarrow as pa

from influence_core import influence_scores, top_k, types
from pipeline import error_bounds, index_reader, retrieve


def scores(
  index: index_reader.Index,
  *,
  options: influence_scores.ScoreOptions,
  columns: tuple[str, ...] = (),
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[tuple[int, np.ndarray, pa.Table]]:
  """Self-influence of every example, block by block.

  Yields:
    `(position of the first, [num_rows] float32, rows)` of each block; rows has
    the columns asked for and those that were needed.
  """
  weights = influence_scores.inverse_eigenvalues(index.eigenvalues, options)
  by_norm = options.normalization == 'gradient_norm'
  if by_norm:
    columns = (*columns, 'squared_gradient_norm')
  for block in index.read_blocks(columns=columns, progress=progress):
    found = influence_scores.self_influence(block.vectors, weights)
    if by_norm:
      norms = block.rows['squared_gradient_norm'].to_numpy()
      found = found / np.maximum(norms, np.finfo(np.float32).tiny)
    yield block.first, found, block.rows


def top(
  index: index_reader.Index,
  *,
  k: int,
  options: influence_scores.ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> retrieve.TopExamples:
  """The k examples with the highest self-influence, as of one query."""
  top_k.check_k(k)
  leaders = top_k.Leaders.none(1, k)
  for first, found, _ in scores(index, options=options, progress=progress):
    positions = first + np.arange(len(found))
    leaders = top_k.with_scores(leaders, found, positions)
  result = retrieve.trimmed(leaders)
  bounds = error_bounds.ErrorBounds(index, options)
  return dataclasses.replace(
    result,
    error_bounds=bounds.of_self_influence(result.scores, result.positions),
  )
