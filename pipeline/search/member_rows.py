"""Rows of an ensemble as each of its members scores them, before the sum.

A normalisation is that of a member: by its own gradients, its own
self-influence.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions
from pipeline.index import block_reader, members as members_lib

_NORM_COLUMN = 'squared_gradient_norm'


class MemberRows:
  """What scores of rows depend on besides queries.

  Attributes:
    columns: of the rows of every member that are needed.
  """

  def __init__(self, index: members_lib.Searched, options: ScoreOptions):
    """Says what is to be scored.

    Raises:
      errors.InputError: The options do not fit the index.
    """
    if options.normalization == 'cosine':
      index.check_eigenvectors("normalization 'cosine'")
    self._members = index.members
    self._parts = members_lib.parts_of(index)
    self._weights = [x.index.column_weights(options) for x in index.members]
    self._normalization = options.normalization
    self.columns: tuple[str, ...] = ()
    if options.normalization == 'gradient_norm':
      self.columns = (_NORM_COLUMN,)

  def self_influences(self, vectors: np.ndarray) -> np.ndarray:
    """[num_rows, num_members] float32, not normalised.

    Args:
      vectors: [num_rows, projection_dim] float32, of all members.
    """
    own = [
      influence_scores.self_influence(vectors[:, part], weights)
      for part, weights in zip(self._parts, self._weights, strict=True)
    ]
    return np.stack(own, axis=1)

  def squared_norms(
    self, blocks: Sequence[block_reader.ReadBlock]
  ) -> np.ndarray:
    """[num_rows, num_members] float32; 1 where they are not needed.

    Args:
      blocks: of the same examples, in each member, with `columns`.
    """
    return self._norms([x.rows for x in blocks], len(blocks[0].vectors))

  def squared_norms_at(self, positions: np.ndarray) -> np.ndarray:
    """The same of examples by position."""
    if not self.columns:
      return self._norms([], len(positions))
    rows = [x.index.rows(x.own(positions), self.columns) for x in self._members]
    return self._norms(rows, len(positions))

  def _norms(self, rows: Sequence[pa.Table], count: int) -> np.ndarray:
    if not self.columns:
      return np.ones((count, len(self._members)), np.float32)
    return np.stack([x[_NORM_COLUMN].to_numpy() for x in rows], axis=1)

  def scales(
    self, own: np.ndarray, squared_norms: np.ndarray
  ) -> np.ndarray | None:
    """[num_rows, num_members] float32 that scores are multiplied by.

    Args:
      own: from `self_influences`.
      squared_norms: from `squared_norms`.

    Returns:
      None for 1.
    """
    return influence_scores.row_scales(own, squared_norms, self._normalization)
