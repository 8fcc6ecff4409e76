"""Sections on training examples: the suspicious ones, and near-duplicates."""

from collections.abc import Mapping, Sequence

import numpy as np

from launch.pages import cards, report
from pipeline.index import ensemble
from pipeline.search import (
  by_token,
  near_duplicates,
  retrieve,
  row_filter,
  tables,
)
from pipeline.search.shown_examples import Shown


class ExampleSections:
  """Makes cards of training examples.

  Attributes:
    marks_bad: whether bad ones are known.
  """

  def __init__(
    self,
    index: ensemble.Ensemble,
    is_bad: row_filter.RowFilter | None,
    shown: Mapping[str, Shown],
  ):
    """Says what is known.

    Args:
      index: that they are of.
      is_bad: which are bad; None where that is not known.
      shown: what is seen of them, by id.
    """
    self._index = index
    self._is_bad = is_bad
    self._shown = shown
    self.marks_bad = is_bad is not None

  def marks(self, positions: np.ndarray) -> dict[str, bool] | None:
    """Which examples are bad, by id; None where that is not known."""
    if self._is_bad is None:
      return None
    rows = self._index.rows(np.unique(positions))
    marks = self._is_bad.matches(rows).tolist()
    return dict(zip(rows['id'].to_pylist(), marks, strict=True))

  def gallery(
    self,
    top: retrieve.TopExamples,
    tokens: Mapping[int, by_token.Tokens],
  ) -> report.Gallery:
    """Leaders by self-influence.

    Args:
      top: of them, as of a single query.
      tokens: with their shares, by position; empty for none.
    """
    [positions] = top.positions
    rows = tables.self_influence_table(self._index, top).to_pylist()
    found = self._cards(rows, positions, tokens)
    orders = list(dict.fromkeys(name for card in found for name in card.values))
    return report.Gallery(found, orders, self.marks_bad)

  def pairs(self, pairs: Sequence[near_duplicates.Pair]) -> list[report.Pair]:
    """Near-duplicates beside each other."""
    if not pairs:
      return []
    positions = np.unique([x for pair in pairs for x in pair[:2]])
    rows = self._index.rows(positions).to_pylist()
    found = self._cards(rows, positions, {})
    made = dict(zip(positions.tolist(), found, strict=True))
    return [
      report.Pair(pair.cosine, (made[pair.first], made[pair.second]))
      for pair in pairs
    ]

  def _cards(
    self,
    rows: Sequence[Mapping],
    positions: np.ndarray,
    tokens: Mapping[int, by_token.Tokens],
  ) -> list[cards.Card]:
    marks = self.marks(positions)
    return [
      cards.make(
        row,
        self._shown.get(row['id']),
        tokens=tokens.get(position),
        is_bad=None if marks is None else marks[row['id']],
      )
      for row, position in zip(rows, positions.tolist(), strict=True)
    ]
