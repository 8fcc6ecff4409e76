"""How far scores of an index in low precision can be from those in float32."""

import numpy as np

from influence_core.scores import (
  influence as influence_scores,
  rounding as score_errors,
  top_k,
)
from influence_core.scores.options import ScoreOptions
from pipeline.index import reader as index_reader, shard_files

_COLUMNS = (shard_files.ERROR_COLUMN, 'squared_gradient_norm')


class ErrorBounds:
  """Bounds of the scores of examples that were found."""

  def __init__(
    self,
    index: index_reader.Index,
    options: ScoreOptions,
  ):
    """Says what was searched, and how it was scored."""
    self._index = index
    self._options = options
    self._weights = index.column_weights(options)
    self._column_scales = index.codec.column_scales

  def of_scores(
    self, query_projections: np.ndarray, positions: np.ndarray
  ) -> np.ndarray | None:
    """Bounds of influence on queries.

    Args:
      query_projections: [num_queries, projection_dim], unscaled.
      positions: [num_queries, k] of examples; `top_k.NO_POSITION` for none.

    Returns:
      [num_queries, k] float32, 0 where there is no example; None for an index
      in float32.
    """
    if self._index.codec.is_exact:
      return None
    normalization = self._options.normalization
    queries = score_errors.query_factors(
      self._index.weight_queries(query_projections, self._options),
      self._weights,
      self._column_scales,
      normalization,
    )
    unique, places = top_k.unique_positions(positions)
    errors, squared_norms = self._columns(unique)
    own = np.empty(0, np.float32)
    if normalization == 'cosine':
      own = influence_scores.self_influence(
        self._index.vectors(unique), self._weights
      )
    rows = score_errors.row_factors(
      errors,
      own,
      squared_norms,
      weights=self._weights,
      column_scales=self._column_scales,
      normalization=normalization,
    )
    return np.append(rows, np.float32(0))[places] * queries[:, None]

  def of_self_influence(
    self, scores: np.ndarray, positions: np.ndarray
  ) -> np.ndarray | None:
    """Bounds of self-influence.

    Args:
      scores: [1, k] self-influence, normalised as the options say.
      positions: [1, k] of the examples.

    Returns:
      [1, k] float32; None for an index in float32.
    """
    if self._index.codec.is_exact:
      return None
    unique, places = top_k.unique_positions(positions)
    errors, squared_norms = (
      np.append(column, np.float32(1))[places]
      for column in self._columns(unique)
    )
    if self._options.normalization != 'gradient_norm':
      squared_norms = np.ones_like(squared_norms)
    bounds = score_errors.self_influence_bounds(
      errors,
      scores * squared_norms,
      weights=self._weights,
      column_scales=self._column_scales,
    )
    return bounds / squared_norms

  def _columns(self, positions: np.ndarray) -> tuple[np.ndarray, ...]:
    rows = self._index.rows(positions, list(_COLUMNS))
    return tuple(rows[name].to_numpy() for name in _COLUMNS)
