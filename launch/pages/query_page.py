"""A report of queries alone: what `influence topk` found for them."""

from collections.abc import Mapping

import pyarrow as pa

from influence_core.scores.options import ScoreOptions
from launch.pages import query_sections, sources
from launch.pages.report import Report
from pipeline.search import retrieve, shown_examples
from pipeline.search.projected_queries import ProjectedQueries
from pipeline.search.query_session import QuerySession


def make(
  session: QuerySession,
  queries: ProjectedQueries,
  found: Mapping[object, retrieve.Found],
  options: ScoreOptions,
  *,
  described: pa.Table,
  results: pa.Table,
) -> Report:
  """Reads the examples again that were found.

  Args:
    session: that was asked.
    queries: what was asked.
    found: for them.
    options: how scores were computed.
    described: what queries are, with `id`.
    results: from `tables.influence_table`.

  Raises:
    errors.InputError: The corpus has changed since.
  """
  shown = query_sections.read_shown(
    session,
    query_sections.positions_of(found.values()),
    'write the results to .parquet or .csv',
  )
  shown |= shown_examples.of_queries(session.members[0], queries)
  sections = query_sections.QuerySections(session, options, shown)
  return Report(
    title='Influence on '
    + ('a query' if len(queries.ids) == 1 else f'{len(queries.ids)} queries'),
    sources=[
      sources.describe(member.index, record)
      for member, record in zip(
        session.index.members, session.records, strict=True
      )
    ],
    num_examples=session.index.num_examples,
    made=sources.now(),
    queries=sections.make(described, results),
  )
