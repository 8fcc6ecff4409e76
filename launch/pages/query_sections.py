"""Queries on a page: each with its proponents, its opponents, and in words."""

from collections.abc import Iterable, Mapping, Sequence
import itertools
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.eigenpairs import reports
from influence_core.scores.options import ScoreOptions
from launch.pages import cards, report
from pipeline.search import retrieve, shown_examples
from pipeline.search.query_session import QuerySession

Row = Mapping[str, Any]


def positions_of(found: Iterable[retrieve.Found]) -> np.ndarray:
  """[n] int64 positions of all that was found, each once."""
  ends = itertools.chain.from_iterable(
    (result.proponents, result.opponents) for result in found
  )
  positions = [np.empty(0, np.int64), *(x.positions.ravel() for x in ends)]
  unique = np.unique(np.concatenate(positions))
  return unique[unique != retrieve.NO_POSITION]


def read_shown(
  session: QuerySession, positions: np.ndarray, otherwise: str
) -> dict[str, shown_examples.Shown]:
  """Examples of the first index, read again; see `shown_examples.read`."""
  first, *_ = session.index.members
  return shown_examples.read(
    session.members[0], first.own(positions), otherwise
  )


class QuerySections:
  """Makes the section of each query."""

  def __init__(
    self,
    session: QuerySession,
    options: ScoreOptions,
    shown: Mapping[str, shown_examples.Shown],
    *,
    class_column: str | None = None,
    is_bad: Mapping[str, bool] | None = None,
  ):
    """Says what is known.

    Args:
      session: that was asked.
      options: how scores were computed.
      shown: what is seen of examples and queries, by id.
      class_column: of the rows, that is compared; None for none.
      is_bad: of training examples that are known to be, by id; None where that
        is not known.
    """
    self._num_examples = session.index.num_examples
    self._estimates = options.normalization == 'none' and all(
      _has_curvature(record.report) for record in session.records
    )
    self._shown = shown
    self._class_column = class_column
    self._is_bad = is_bad

  def make(self, described: pa.Table, results: pa.Table) -> list[report.Query]:
    """Sections in the order of the results.

    Args:
      described: what queries are, with `id`.
      results: from `tables.influence_table`.
    """
    known = {row['id']: row for row in described.to_pylist()}
    return [
      self._section(known.get(query_id, {'id': query_id}), list(rows))
      for query_id, rows in itertools.groupby(
        results.to_pylist(), lambda row: row['query_id']
      )
    ]

  def _section(self, query: Row, rows: Sequence[Row]) -> report.Query:
    proponents, opponents = (
      [row for row in rows if row['kind'] == kind]
      for kind in ('proponent', 'opponent')
    )
    return report.Query(
      cards.make(query, self._shown.get(query['id'])),
      self._words(query, proponents, opponents),
      [self._card(row) for row in proponents],
      [self._card(row) for row in opponents],
    )

  def _card(self, row: Row) -> cards.Card:
    is_bad = None if self._is_bad is None else self._is_bad[row['id']]
    return cards.make(row, self._shown.get(row['id']), is_bad=is_bad)

  def _words(
    self, query: Row, proponents: Sequence[Row], opponents: Sequence[Row]
  ) -> list[str]:
    found = []
    helping = [row['score'] for row in proponents if row['score'] > 0]
    if self._estimates and helping:
      first, total = (
        x / self._num_examples for x in (helping[0], sum(helping))
      )
      found.append(
        'Trained without its first proponent, the model is estimated '
        f'to have a loss here {first:.2g} higher; without the {len(helping)} '
        f'shown, {total:.2g} (scores over {self._num_examples:,} examples).'
      )
    column = self._class_column
    if column is not None and column in query:
      for name, rows in (('proponents', proponents), ('opponents', opponents)):
        same = sum(row[column] == query[column] for row in rows)
        found.append(
          f'{same} of {len(rows)} {name} have its {column}, {query[column]}.'
        )
    return found


def _has_curvature(found: Any) -> bool:
  """Whether scores of a basis estimate what training would do."""
  if isinstance(found, reports.QueryReport):
    return found.method != 'gradient'
  return not isinstance(found, reports.RandomReport)
