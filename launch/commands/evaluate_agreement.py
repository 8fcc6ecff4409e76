"""`influence evaluate agreement`: do two ways to compute influence agree?"""

from typing import Any

import numpy as np
import pyarrow as pa

from influence_core import errors
from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  evaluation_report,
  plots,
)
from pipeline.evaluation import baselines as baseline_scores
from pipeline.evaluation.options import Baseline
from pipeline.search.query_session import QuerySession, open_compared
from pipeline.storage import output_places
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[list[str]],
  scales: list[float] | None,
  baselines: list[Baseline],
  reference: str,
  query_split: str,
  k: int,
  seed: int,
  out: str | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Compares the scores of indexes with those of a reference.

  Raises:
    errors.InputError: Something is missing, out of range or of other examples.
  """
  if out is not None:
    out = output_places.check_results(out)

  def scores_of(session: QuerySession, options: ScoreOptions):
    queries = session.project(query_split)
    basis_notes.tell(console, *session.records)
    return (*session.scores(queries, options), queries.batch.ids)

  session = QuerySession(reference, task)
  expected, ids, query_ids = scores_of(session, ScoreOptions())
  if not 1 <= k <= len(ids):
    raise errors.InputError(
      f'k is {k}, expected 1 to the {len(ids)} examples of {reference}'
    )
  figures: dict[str, dict[str, np.ndarray]] = {}
  for compared in open_compared(indexes, task, scales):
    found, own_ids, _ = scores_of(compared, options)
    path = compared.index.path
    if own_ids != ids:
      raise errors.InputError(
        f'{path} and {reference} have different examples; project the same '
        'corpus'
      )
    figures[path] = _figures(found, expected, k)
  for name in baselines:
    found, _ = baseline_scores.scores(
      name, session.index, session.loaded, query_split
    )
    figures[name] = _figures(found, expected, k)
  report = _report(figures, reference, query_ids, len(ids), seed)
  return report.show(console, out)


def _report(
  figures: dict[str, dict[str, np.ndarray]],
  reference: str,
  query_ids: list[str],
  num_examples: int,
  seed: int,
) -> evaluation_report.Report:
  """Means of the figures of each index, which are of each query."""
  rows, tables = [], []
  for path, own in figures.items():
    queries = {'method': [path] * len(query_ids), 'query_id': query_ids}
    tables.append(pa.table({**queries, **own}))
    row: dict[str, Any] = {'method': path}
    for name, values in own.items():
      interval = evaluation.mean_interval(values, seed=seed)
      row |= evaluation_report.interval_columns(name, interval)
    rows.append(row)
  return evaluation_report.Report(
    'agreement',
    f'agreement with {reference}: mean over {len(query_ids)} queries and 95 % '
    f'interval, seed {seed}',
    pa.Table.from_pylist(rows),
    result={
      'reference': reference,
      'num_queries': len(query_ids),
      'num_examples': num_examples,
      'seed': seed,
      'agreement': rows,
    },
    tables={'agreement': pa.concat_tables(tables)},
    plots={'agreement': lambda: _plot(rows, list(own), reference)},
  )


def _plot(
  rows: list[dict[str, Any]], figures: list[str], reference: str
) -> bytes:
  names = evaluation_report.short_names([row['method'] for row in rows])
  series = {
    figure: [
      plots.Interval(
        name, *(row[f'{figure}{end}'] for end in ('', '_low', '_high'))
      )
      for name, row in zip(names, rows, strict=True)
    ]
    for figure in figures
  }
  return plots.intervals(
    series, title=f'agreement with {reference}', joined=False
  )


def _figures(
  found: np.ndarray, expected: np.ndarray, k: int
) -> dict[str, np.ndarray]:
  """Of each query: correlations, and the part of the top k in common."""
  first = [
    np.argsort(-x, axis=1, kind='stable')[:, :k] for x in (found, expected)
  ]
  common = [len(np.intersect1d(*pair)) / k for pair in zip(*first, strict=True)]
  return {
    'pearson': evaluation.pearson_correlations(found.T, expected.T),
    'spearman': evaluation.spearman_correlations(found.T, expected.T),
    f'top_{k}_in_common': np.array(common),
  }
