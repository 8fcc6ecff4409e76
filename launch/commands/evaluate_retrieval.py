"""`influence evaluate retrieval`: are the right examples found?"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  evaluation_report,
  plots,
)
from pipeline.evaluation import (
  baselines as baseline_scores,
  retrieval_quality,
)
from pipeline.evaluation.options import Baseline
from pipeline.search import row_filter
from pipeline.search.query_session import QuerySession
from pipeline.storage import output_places
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[str],
  scales: list[float] | None,
  baselines: list[Baseline],
  query_split: str,
  relevant: str,
  where: str | None,
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
  session = QuerySession(indexes, task, scales=scales)
  opened = session.index
  if not 1 <= k <= opened.num_examples:
    raise errors.InputError(
      f'k is {k}, expected 1 to the {opened.num_examples} examples'
    )
  chosen = row_filter.RowFilter(where, opened.schema) if where else None
  if out is not None:
    out = output_places.check_results(out)
  queries = session.project(query_split)
  basis_notes.tell(console, *session.records)
  with console.stage('evaluate'):
    scores = {'influence': session.scores(queries, options)[0]}
    for name in baselines:
      scores[name], _ = baseline_scores.scores(
        name, opened, session.loaded, query_split
      )
    rows = opened.rows()
    if chosen is not None:
      kept = chosen.matches(rows)
      rows = rows.filter(pa.array(kept))
      scores = {name: every[:, kept] for name, every in scores.items()}
    quality = retrieval_quality.measure(
      rows,
      queries.batch,
      scores,
      relevant=relevant,
      opponents=kind == 'opponents',
      k=k,
    )
  wanted = {
    'index': opened.path,
    'relevant': relevant,
    'where': where,
    'kind': kind,
  }
  return _report(quality, wanted, seed).show(console, out)


def _report(
  quality: retrieval_quality.Quality, wanted: dict[str, str | None], seed: int
) -> evaluation_report.Report:
  """Means of the figures of each query and score."""
  rows = []
  for score in quality.table['score'].unique().to_pylist():
    own = quality.table.filter(pc.field('score') == score)
    for figure in own.column_names[
      own.column_names.index('num_relevant') + 1 :
    ]:
      found = evaluation.mean_interval(own[figure].to_numpy(), seed=seed)
      rows.append({'score': score, 'figure': figure, **found._asdict()})
  size, kind = own.num_rows, wanted['kind']
  about = f'{kind} with {wanted["relevant"]}'
  if wanted['where'] is not None:
    about += f', among {wanted["where"]}'
  return evaluation_report.Report(
    'retrieval',
    f'{about}: mean over {size} queries, 95 % interval, seed {seed}; '
    f'{quality.num_without} queries have none',
    pa.Table.from_pylist(rows),
    result={
      **wanted,
      'num_queries': size,
      'num_without': quality.num_without,
      'seed': seed,
      'figures': rows,
    },
    tables={'retrieval': quality.table},
    plots={'retrieval': lambda: _plot(rows, about)},
  )


def _plot(rows: list[dict[str, Any]], title: str) -> bytes:
  series: dict[str, list[plots.Interval]] = {}
  for row in rows:
    series.setdefault(row['score'], []).append(
      plots.Interval(row['figure'], row['mean'], row['low'], row['high'])
    )
  return plots.intervals(series, title=title, joined=False)
