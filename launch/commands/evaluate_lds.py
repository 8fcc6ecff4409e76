"""`influence evaluate lds`: does influence predict what retraining does?"""

from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib, plots, result_tables
from pipeline.evaluation import datamodelling, retrainings
from pipeline.search.query_session import QuerySession
from pipeline.storage import files as storage, output_places
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  indexes: list[str],
  query_split: str,
  num_subsets: int,
  fraction: float,
  num_repeats: int,
  num_workers: int,
  seed: int,
  out: str,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Trains on random parts of the corpus and compares with predictions.

  Raises:
    errors.InputError: Something is missing or out of range.
  """
  design = retrainings.Design(num_subsets, fraction, seed)
  directory = output_places.check_results(out)
  retrainings.check(
    task.load(), num_repeats=num_repeats, num_workers=num_workers
  )
  loaded = loaded_task.LoadedTask.load(task)
  measured = datamodelling.Datamodelling(loaded, query_split, design)
  predicted = {}
  for index in indexes:
    session = QuerySession(index, task)
    with console.stage('scores') as progress:
      predicted[session.index.path] = measured.predicted(
        session, options, progress=progress
      )
  with console.stage('retrain', 'trainings') as progress:
    actual = measured.actual(
      storage.join(directory, 'retrainings'),
      num_repeats=num_repeats,
      num_workers=num_workers,
      progress=progress,
    )
  return _report(
    console, directory, predicted, actual, measured.query_ids, design
  )


def _report(
  console: console_lib.Console,
  out: str,
  predicted: dict[str, np.ndarray],
  actual: np.ndarray,
  query_ids: list[str],
  design: retrainings.Design,
) -> dict[str, Any]:
  rows: list[dict[str, Any]] = []
  tables = []
  for index, values in predicted.items():
    scores = datamodelling.scores(values, actual)
    found = evaluation.mean_interval(scores, seed=design.seed)
    rows.append(
      {'index': index, 'lds': found.mean, 'low': found.low, 'high': found.high}
    )
    tables.append(
      pa.table(
        {
          'index': [index] * len(scores),
          'query_id': query_ids,
          'spearman': scores,
        }
      )
    )
  result_tables.print_rows(
    console,
    f'linear datamodelling score: {len(query_ids)} queries, '
    f'{design.num_subsets} subsets of {design.fraction:.0%}, seed '
    f'{design.seed}; 95 % interval over queries',
    pa.Table.from_pylist(rows),
  )
  result = {
    'scores': rows,
    'num_queries': len(query_ids),
    'num_subsets': design.num_subsets,
    'fraction': design.fraction,
    'seed': design.seed,
  }
  title = f'{len(query_ids)} queries, {design.num_subsets} subsets'
  result_tables.write_result(
    out,
    'lds',
    result,
    {'lds': pa.concat_tables(tables)},
    {'lds': lambda: _plot(rows, title)},
  )
  return result


def _plot(rows: list[dict[str, Any]], title: str) -> bytes:
  names = plots.short_names([row['index'] for row in rows])
  points = [
    plots.Interval(name, row['lds'], row['low'], row['high'])
    for name, row in zip(names, rows, strict=True)
  ]
  return plots.intervals(
    {'linear datamodelling score': points}, title=title, joined=False
  )
