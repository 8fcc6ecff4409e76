"""`influence report`: an index as a page to look at."""

from typing import Any

from influence_core.projection.options import ProjectionOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  result_tables,
  search_notes,
)
from launch.pages import report_builder, report_page
from launch.pages.report_request import ReportRequest
from pipeline.search.query_session import QuerySession
from pipeline.tasks.query_choice import QueryChoice
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[str],
  scales: list[float] | None,
  bases: list[str] | None,
  queries: QueryChoice | None,
  request: ReportRequest,
  projection_options: ProjectionOptions,
  out: str,
) -> dict[str, Any]:
  """Reads the indexes and writes the page."""
  result_tables.check_table_file(out, ('.html', '.htm'))
  session = QuerySession(
    indexes, task, basis=bases, scales=scales, options=projection_options
  )
  search_notes.tell_before(
    console, session.index, k=request.k, options=request.options
  )
  builder = report_builder.ReportBuilder(console, session, request)
  if not request.rows_only:
    basis_notes.tell(console, *session.records)
  report = builder.build(queries)
  report_page.write(out, report)
  shown = len(report.gallery.cards) if report.gallery else 0
  console.print(
    f'{shown:,} training examples and {len(report.queries):,} queries are '
    f'shown in {out}'
  )
  return {
    **search_notes.searched(session.index),
    'out': out,
    'num_shown': shown,
    'num_queries': len(report.queries),
    'num_near_duplicates': len(report.pairs),
    'num_rejected': report.rejected.num_rows if report.rejected else 0,
  }
