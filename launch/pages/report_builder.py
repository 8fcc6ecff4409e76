"""Gathers what a report says from indexes, their task and their bases."""

from collections.abc import Mapping
import functools
import itertools
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from influence_core import errors
from launch.output import console as console_lib, search_notes
from launch.pages import (
  corpus_sections,
  example_sections,
  query_sections,
  report,
  sources,
)
from launch.pages.report_request import ReportRequest
from pipeline.search import (
  by_token,
  corpus_summary,
  near_duplicates,
  retrieve,
  row_filter,
  self_influence,
  tables,
)
from pipeline.search.query_session import QuerySession
from pipeline.search.request import SearchRequest
from pipeline.search.selection import Selection
from pipeline.search.shown_examples import Shown, of_queries
from pipeline.tasks import queries as query_lib
from pipeline.tasks.query_choice import QueryChoice

_DEFAULT_CLASS_COLUMN = 'label'
# Nearer than this, gradients are those of copies, or nearly.
_NEAR = 0.95
_MAX_PAIRS = 24
_OTHERWISE = 'leave the examples out with --rows_only'


class _Asked(NamedTuple):
  """What was found for queries.

  Attributes:
    described: what the queries are, with `id`.
    results: from `tables.influence_table`.
    shown: what is seen of the queries, by id.
    positions: of all examples that were found.
  """

  described: pa.Table
  results: pa.Table
  shown: Mapping[str, Shown]
  positions: np.ndarray


class ReportBuilder:
  """Reads each part of a report once."""

  def __init__(
    self,
    console: console_lib.Console,
    session: QuerySession,
    request: ReportRequest,
  ):
    """Checks what is asked for, before any work.

    Args:
      console: that shows progress.
      session: of the indexes.
      request: what to show.

    Raises:
      errors.InputError: A condition or a column does not fit the index, or
        something of the task is missing.
    """
    self._console = console
    self._session = session
    self._index = session.index
    self._request = request
    self._search = SearchRequest(
      request.k,
      request.options,
      Selection(request.where),
      exclude_self=request.exclude_self,
      by_layer=all(x.index.layers for x in self._index.members),
    )
    self._index.check_examples('report')
    session.check(self._search)
    self._ranks = search_notes.ranks_examples(self._index)
    if request.class_column:
      self._index.check_column(request.class_column)
    self._is_bad = None
    if request.bad is not None:
      self._is_bad = row_filter.RowFilter(
        request.bad, self._index.schema, flag='--bad'
      )
    self._records = [] if request.rows_only else session.records
    if not request.rows_only:
      _ = session.loaded
      if request.tokens:
        session.loaded.check_token_losses()

  def gallery(self) -> report.Gallery:
    """The most suspicious training examples alone.

    Raises:
      errors.InputError: The corpus has changed since.
    """
    top = self._top()
    return self._gallery(top, self._read(top.positions[0], [], None))

  def answer(
    self, queries: query_lib.Queries
  ) -> tuple[list[report.Query], pa.Table]:
    """What is found for queries alone.

    Args:
      queries: see `QuerySession.project`.

    Returns:
      A section for each, and the rows of all results.

    Raises:
      errors.InputError: A query cannot be used, or the corpus has changed.
    """
    asked = self._ask(queries)
    shown = self._read(np.empty(0, np.int64), [], asked)
    return self._queries(asked, shown), asked.results

  def build(self, queries: QueryChoice | None) -> report.Report:
    """All sections.

    Args:
      queries: to ask; None for none.

    Raises:
      errors.InputError: A query cannot be used, the corpus has changed, or
        something does not fit the index.
    """
    asked = self._ask(queries) if queries is not None else None
    top = self._top()
    pairs = self._near(top.positions[0])
    shown = self._read(top.positions[0], pairs, asked)
    summary = self._summary()
    drift = self._drift()
    return report.Report(
      title=self._title(),
      sources=self._sources(),
      num_examples=self._index.num_examples,
      made=sources.now(),
      gallery=self._gallery(top, shown) if self._ranks else None,
      detection=self._detection(),
      queries=self._queries(asked, shown) if asked else (),
      classes=summary.classes if summary else None,
      layers=corpus_sections.layers(self._index, summary) if summary else (),
      spectrum=corpus_sections.spectrum(self._records),
      pairs=self._sections(shown).pairs(pairs),
      num_compared=top.positions.shape[1],
      rejected=corpus_sections.rejected(self._index.members[0].index),
      drift=drift,
    )

  def _title(self) -> str:
    *_, last = self._session.task.import_path.rpartition('.')
    return f'Influence: {last.partition(":")[0].replace("_", " ")}'

  def _sources(self) -> list[report.Source]:
    return [
      sources.describe(member.index, record)
      for member, record in itertools.zip_longest(
        self._index.members, self._records
      )
    ]

  @functools.cached_property
  def _class_column(self) -> str | None:
    given = self._request.class_column
    if given is not None:
      return given or None
    has_label = _DEFAULT_CLASS_COLUMN in self._index.schema.names
    return _DEFAULT_CLASS_COLUMN if has_label else None

  def _top(self) -> retrieve.TopExamples:
    """The examples of the gallery; none where there is no such order."""
    if not self._ranks:
      return retrieve.no_result(1).self_influence
    with self._console.stage('self-influence') as progress:
      return self_influence.top(
        self._index,
        k=self._request.num_examples,
        options=self._request.options,
        selection=self._search.selection,
        by_layer=self._search.by_layer,
        progress=progress,
      )

  def _ask(self, queries: query_lib.Queries) -> _Asked:
    session, options = self._session, self._request.options
    projected, copies = session.project(queries).distinct()
    search_notes.tell_copies(self._console, copies)
    described = session.described(projected)
    with self._console.stage('topk') as progress:
      found = session.search(projected, self._search, progress=progress)
    positions = query_sections.positions_of(found.values())
    if self._request.tokens:
      with self._console.stage('tokens', 'directions') as progress:
        found = session.by_token(projected, found, options, progress=progress)
    return _Asked(
      described,
      tables.influence_table(self._index, projected.ids, found),
      of_queries(session.members[0], projected),
      positions,
    )

  def _near(self, positions: np.ndarray) -> list[near_duplicates.Pair]:
    if not len(positions):
      return []
    with self._console.stage('near-duplicates') as progress:
      return near_duplicates.find(
        self._index,
        positions,
        at_least=_NEAR,
        options=self._request.options,
        where=self._request.where,
        progress=progress,
      )[:_MAX_PAIRS]

  def _read(
    self,
    positions: np.ndarray,
    pairs: list[near_duplicates.Pair],
    asked: _Asked | None,
  ) -> dict[str, Shown]:
    """What is seen of all examples on the page, by id."""
    shown = {} if asked is None else dict(asked.shown)
    if self._request.rows_only:
      return shown
    wanted = {*positions.tolist(), *(x for pair in pairs for x in pair[:2])}
    wanted |= set() if asked is None else set(asked.positions.tolist())
    with self._console.stage('read'):
      return shown | query_sections.read_shown(
        self._session, np.array(sorted(wanted), np.int64), _OTHERWISE
      )

  def _sections(
    self, shown: Mapping[str, Shown]
  ) -> example_sections.ExampleSections:
    return example_sections.ExampleSections(self._index, self._is_bad, shown)

  def _gallery(
    self, top: retrieve.TopExamples, shown: Mapping[str, Shown]
  ) -> report.Gallery:
    tokens: dict[int, by_token.Tokens] = {}
    if self._request.tokens:
      shares = by_token.TokenShares(
        self._index, self._session.members, self._request.options
      )
      with self._console.stage('tokens of examples') as progress:
        tokens = shares.of_self_influence(top.positions[0], progress)
    return self._sections(shown).gallery(top, tokens)

  def _detection(self) -> report.Detection | None:
    bad = self._request.bad
    if bad is None or not self._ranks:
      return None
    with self._console.stage('detection'):
      return corpus_sections.detection(
        self._index, bad, self._request.where, self._request.options
      )

  def _queries(
    self, asked: _Asked, shown: Mapping[str, Shown]
  ) -> list[report.Query]:
    sections = query_sections.QuerySections(
      self._session,
      self._request.options,
      shown,
      class_column=self._class_column,
      is_bad=self._sections(shown).marks(asked.positions),
    )
    return sections.make(asked.described, asked.results)

  def _drift(self) -> report.Drift | None:
    first, *others = self._index.members
    earlier = corpus_sections.earlier_generation(first.index)
    if others or not self._ranks or earlier is None:
      return None
    with self._console.stage('drift', 'files') as progress:
      return corpus_sections.drift(
        first.index, earlier, self._request.options, progress
      )

  def _summary(self) -> corpus_summary.CorpusSummary | None:
    if not self._ranks:
      return None
    with self._console.stage('summary') as progress:
      summary = corpus_summary.summarise(
        self._index,
        self._request.options,
        class_column=self._class_column,
        progress=progress,
      )
    if self._request.class_column and summary.classes is None:
      raise errors.InputError(
        f'class_column is {self._request.class_column}, which has more than '
        f'{corpus_summary.MAX_CLASSES} values, too many for classes; name '
        "another column, or '' for none"
      )
    return summary
