"""`influence topk`: proponents and opponents of queries."""

from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.projection.options import ProjectionOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  error_lines,
  result_tables,
  search_notes,
)
from launch.pages import query_page, report_page
from pipeline.beam import runner_options, scan_on_beam
from pipeline.beam.engines import EngineChoice
from pipeline.search import scan as scan_lib, tables
from pipeline.search.query_session import QuerySession
from pipeline.search.request import SearchRequest
from pipeline.tasks.query_choice import QueryChoice
from pipeline.tasks.reference import TaskReference

_NUM_PRINTED = 3


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[str],
  scales: list[float] | None,
  queries: QueryChoice,
  bases: list[str] | None,
  request: SearchRequest,
  projection_options: ProjectionOptions,
  engine: EngineChoice,
  tokens: bool,
  out: str | None,
) -> dict[str, Any]:
  """Projects the queries and scans the indexes once for all of them."""
  result_tables.check_table_file(out, ('.parquet', '.csv', '.html'))
  scan = scan_lib.scan
  if engine.is_chosen:
    scan = scan_on_beam.on_runner(
      runner_options.make_options(engine, tell=console.tell)
    )
  session = QuerySession(
    indexes, task, basis=bases, scales=scales, options=projection_options
  )
  session.check(request)
  opened, options = session.index, request.options
  search_notes.tell_before(console, opened, k=request.k, options=options)
  projected = session.project(queries, certify=request.certify)
  projected, copies = projected.distinct()
  search_notes.tell_copies(console, copies)
  described = session.described(projected)
  basis_notes.tell(console, *session.records)
  with console.stage('topk') as progress, error_lines.engine_errors():
    found = session.search(projected, request, scan=scan, progress=progress)
  if tokens:
    with console.stage('tokens', 'directions') as progress:
      found = session.by_token(projected, found, options, progress=progress)
  table = tables.influence_table(opened, projected.ids, found)
  if out and out.endswith('.html'):
    with console.stage('page'):
      page = query_page.make(
        session, projected, found, options, described=described, results=table
      )
      report_page.write(out, page)
  elif out:
    result_tables.write_table(out, table)
  search_notes.tell_after(console, table, request.selection.where)
  result_tables.print_rows(console, 'queries', described.slice(0, _NUM_PRINTED))
  asked = 'measurement' if session.loaded.task.measurement else 'loss'
  _print_first(console, table, len(projected.ids), f'the query {asked}')
  search_notes.suggest_next(console, opened)
  return {
    **search_notes.searched(opened),
    'num_queries': len(projected.ids),
    'copies': copies,
    'out': out,
    'queries': described.to_pylist(),
    # Of single queries there is none.
    'self_influence': [
      row
      for result in found.values()
      if search_notes.ranks_examples(opened)
      for row in tables.self_influence_table(
        opened, result.self_influence
      ).to_pylist()
    ],
    # With --out they are there, and may be too many for a document.
    'results': None if out else table.to_pylist(),
  }


def _print_first(
  console: console_lib.Console, table: pa.Table, num_queries: int, asked: str
) -> None:
  """Prints the results of the first queries."""
  names = table['query_id'].to_numpy(zero_copy_only=False)
  firsts = np.flatnonzero(names[1:] != names[:-1]) + 1
  stop = firsts[_NUM_PRINTED - 1] if len(firsts) >= _NUM_PRINTED else None
  result_tables.print_rows(
    console,
    f'influence: positive = proponent = up-weighting it lowers {asked}',
    table.slice(0, stop),
  )
  if stop is not None:
    console.print(
      f'... and {num_queries - _NUM_PRINTED} more queries; --out and '
      '--json give them all'
    )
