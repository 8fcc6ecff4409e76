"""How far scores of indexes in low precision can be from those in float32.

Of an ensemble the bounds of its members add up, as their scores do.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from influence_core.scores import rounding as score_errors, top_k
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib, shard_files
from pipeline.search import member_rows


class ErrorFactors:
  """Factors of rows and queries, of each member; see `scores.rounding`.

  Attributes:
    columns: of the rows that are needed, of each member.
    is_exact: whether all members are in float32.
  """

  def __init__(self, index: members_lib.Searched, options: ScoreOptions):
    """Says what is searched, and how it is scored."""
    self._index = index
    self._options = options
    self._weights = [x.index.column_weights(options) for x in index.members]
    self._column_scales = [x.index.codec.column_scales for x in index.members]
    exact = [x.index.codec.is_exact for x in index.members]
    self.columns = [() if x else (shard_files.ERROR_COLUMN,) for x in exact]
    self.is_exact = all(exact)

  def of_queries(self, query_projections: np.ndarray) -> np.ndarray:
    """[num_queries, num_members] float32, with the scales of members.

    Args:
      query_projections: [num_queries, projection_dim], unscaled.
    """
    factors = []
    for number, (member, part) in enumerate(
      zip(self._index.members, members_lib.parts_of(self._index), strict=True)
    ):
      factor = score_errors.query_factors(
        member.index.weight_queries(query_projections[:, part], self._options),
        self._weights[number],
        self._column_scales[number],
        self._options.normalization,
      )
      factors.append(factor * np.float32(member.scale))
    return np.stack(factors, axis=1)

  def of_rows(
    self,
    rows: Sequence[pa.Table],
    own: np.ndarray,
    squared_norms: np.ndarray,
  ) -> np.ndarray:
    """[num_rows, num_members] float32.

    Args:
      rows: of the same examples, in each member, with `columns`.
      own: [num_rows, num_members] self-influence, not normalised.
      squared_norms: [num_rows, num_members], see `MemberRows`.
    """
    errors = self._errors(rows, len(own))
    factors = [
      score_errors.row_factors(
        errors[:, number],
        own[:, number],
        squared_norms[:, number],
        weights=self._weights[number],
        column_scales=self._column_scales[number],
        normalization=self._options.normalization,
      )
      for number in range(len(self._weights))
    ]
    return np.stack(factors, axis=1)

  def of_self_influence(
    self,
    scores: np.ndarray,
    rows: Sequence[pa.Table],
    squared_norms: np.ndarray,
  ) -> np.ndarray:
    """[num_rows] float32 bounds of errors.

    Args:
      scores: [num_rows] self-influence, normalised as the options say. That of
        a member is at most this, over its scale.
      rows: as of `of_rows`.
      squared_norms: likewise; 1 but for 'gradient_norm'.
    """
    errors = self._errors(rows, len(scores))
    norms = np.maximum(squared_norms, np.finfo(np.float32).tiny)
    bounds = np.zeros(len(scores), np.float32)
    for number, member in enumerate(self._index.members):
      own, scale = norms[:, number], np.float32(member.scale)
      found = score_errors.self_influence_bounds(
        errors[:, number],
        scores * own / scale,
        weights=self._weights[number],
        column_scales=self._column_scales[number],
      )
      bounds += found / own * scale
    return bounds

  def _errors(self, rows: Sequence[pa.Table], count: int) -> np.ndarray:
    """[num_rows, num_members] float32 errors of stored vectors."""
    found = np.zeros((count, len(rows)), np.float32)
    for number, (table, columns) in enumerate(
      zip(rows, self.columns, strict=True)
    ):
      for name in columns:
        found[:, number] = table[name].to_numpy()
    return found


class ErrorBounds:
  """Bounds of the scores of examples that were found."""

  def __init__(self, index: members_lib.Searched, options: ScoreOptions):
    """Says what was searched, and how it was scored."""
    self._index = index
    self._options = options
    self._rows = member_rows.MemberRows(index, options)
    self._factors = ErrorFactors(index, options)

  def of_scores(
    self, query_projections: np.ndarray, positions: np.ndarray
  ) -> np.ndarray | None:
    """Bounds of influence on queries.

    Args:
      query_projections: [num_queries, projection_dim], unscaled.
      positions: [num_queries, k] of examples; `top_k.NO_POSITION` for none.

    Returns:
      [num_queries, k] float32, 0 where there is no example; None for indexes
      in float32.
    """
    if self._factors.is_exact:
      return None
    queries = self._factors.of_queries(query_projections)
    unique, places = top_k.unique_positions(positions)
    tables, squared_norms = self._read(unique)
    own = np.zeros_like(squared_norms)
    if self._options.normalization == 'cosine':
      own = self._rows.self_influences(self._index.vectors(unique))
    rows = self._factors.of_rows(tables, own, squared_norms)
    rows = np.append(rows, np.zeros((1, rows.shape[1]), np.float32), axis=0)
    return np.einsum('qkm,qm->qk', rows[places], queries)

  def of_self_influence(
    self, scores: np.ndarray, positions: np.ndarray
  ) -> np.ndarray | None:
    """Bounds of self-influence.

    Args:
      scores: [1, k] self-influence, normalised as the options say.
      positions: [1, k] of the examples.

    Returns:
      [1, k] float32; None for indexes in float32.
    """
    if self._factors.is_exact:
      return None
    unique, places = top_k.unique_positions(positions)
    tables, squared_norms = self._read(unique)
    known = np.zeros(len(unique) + 1, np.float32)
    known[places] = scores
    bounds = self._factors.of_self_influence(known[:-1], tables, squared_norms)
    return np.append(bounds, np.float32(0))[places]

  def _read(self, positions: np.ndarray) -> tuple[list[pa.Table], np.ndarray]:
    """Rows of examples in each member, and their squared norms."""
    tables = [
      member.index.rows(member.own(positions), list(columns))
      for member, columns in zip(
        self._index.members, self._factors.columns, strict=True
      )
    ]
    return tables, self._rows.squared_norms_at(positions)
