"""`influence evaluate retrieval`: are the right examples found?"""

from typing import Any

import pyarrow as pa

from influence_core import errors
from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib, plots, result_tables
from pipeline.evaluation import retrieval_quality
from pipeline.search.query_session import QuerySession
from pipeline.storage import output_places
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  index: str,
  query_split: str,
  relevant: str,
  kind: str,
  k: int,
  seed: int,
  out: str | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Measures the ranking of all examples for each query.

  Raises:
    errors.InputError: Something is missing or out of range.
  """
  session = QuerySession(index, task)
  opened = session.index
  if not 1 <= k <= opened.num_examples:
    raise errors.InputError(
      f'k is {k}, expected 1 to the {opened.num_examples} examples'
    )
  if out is not None:
    out = output_places.check_results(out)
  queries = session.project(query_split)
  with console.stage('evaluate'):
    quality = retrieval_quality.measure(
      opened,
      queries.batch,
      queries.projections,
      relevant=relevant,
      opponents=kind == 'opponents',
      k=k,
      options=options,
    )
  rows = []
  for name in quality.table.column_names[2:]:
    values = quality.table[name].to_numpy()
    found = evaluation.mean_interval(values, seed=seed)
    rows.append({'figure': name, **found._asdict()})
  result = {
    'index': opened.path,
    'relevant': relevant,
    'kind': kind,
    'num_queries': quality.table.num_rows,
    'num_without': quality.num_without,
    'seed': seed,
    'figures': rows,
  }
  result_tables.print_rows(
    console,
    f'{kind} with {relevant}: mean over {quality.table.num_rows} queries, 95 % '
    f'interval, seed {seed}; {quality.num_without} queries have none',
    pa.Table.from_pylist(rows),
  )
  if out is not None:
    result_tables.write_result(
      out,
      'retrieval',
      result,
      {'retrieval': quality.table},
      {'retrieval': lambda: _plot(rows, kind, f'{kind} with {relevant}')},
    )
  return result


def _plot(rows: list[dict[str, Any]], kind: str, title: str) -> bytes:
  points = [
    plots.Interval(x['figure'], x['mean'], x['low'], x['high']) for x in rows
  ]
  return plots.intervals({kind: points}, title=title, joined=False)
