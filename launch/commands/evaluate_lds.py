"""`influence evaluate lds`: does influence predict what retraining does?"""

from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  evaluation_report,
  plots,
)
from pipeline.evaluation import datamodelling, retrainings
from pipeline.evaluation.options import Design, Retraining
from pipeline.search.query_session import open_compared
from pipeline.storage import files as storage, output_places
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[list[str]],
  scales: list[float] | None,
  query_split: str,
  design: Design,
  retraining: Retraining,
  out: str,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Trains on random parts of the corpus and compares with predictions.

  Raises:
    errors.InputError: Something is missing or out of range.
  """
  directory = output_places.check_results(out)
  sessions = open_compared(indexes, task, scales)
  task = task or sessions[0].task
  retrainings.check(task.load())
  loaded = loaded_task.LoadedTask.load(task)
  measured = datamodelling.Datamodelling(loaded, query_split, design)
  predicted = {}
  for session in sessions:
    with console.stage('scores') as progress:
      predicted[session.index.path] = measured.predicted(
        session, options, progress=progress
      )
    basis_notes.tell(console, *session.records)
  with console.stage('retrain', 'trainings') as progress:
    actual = measured.actual(
      storage.join(directory, 'retrainings'),
      retraining,
      progress=progress,
    )
  report = _report(predicted, actual, measured.query_ids, design)
  return report.show(console, directory)


def _report(
  predicted: dict[str, np.ndarray],
  actual: np.ndarray,
  query_ids: list[str],
  design: Design,
) -> evaluation_report.Report:
  rows: list[dict[str, Any]] = []
  tables = []
  for index, values in predicted.items():
    scores = datamodelling.scores(values, actual)
    found = evaluation.mean_interval(scores, seed=design.seed)
    rows.append(
      {'index': index, 'lds': found.mean, 'low': found.low, 'high': found.high}
    )
    of_queries = {'query_id': query_ids, 'spearman': scores}
    tables.append(pa.table({'index': [index] * len(scores), **of_queries}))
  size = f'{len(query_ids)} queries, {design.num_subsets} subsets'
  return evaluation_report.Report(
    'lds',
    f'linear datamodelling score: {size} of {design.fraction:.0%}, seed '
    f'{design.seed}; 95 % interval over queries',
    pa.Table.from_pylist(rows),
    result={
      'scores': rows,
      'num_queries': len(query_ids),
      'num_subsets': design.num_subsets,
      'fraction': design.fraction,
      'seed': design.seed,
    },
    tables={'lds': pa.concat_tables(tables)},
    plots={'lds': lambda: _plot(rows, size)},
  )


def _plot(rows: list[dict[str, Any]], title: str) -> bytes:
  names = plots.short_names([row['index'] for row in rows])
  points = [
    plots.Interval(name, row['lds'], row['low'], row['high'])
    for name, row in zip(names, rows, strict=True)
  ]
  return plots.intervals(
    {'linear datamodelling score': points}, title=title, joined=False
  )
