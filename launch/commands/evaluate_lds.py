"""`influence evaluate lds`: does influence predict what retraining does?"""

import dataclasses
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from influence_core.scores import evaluation, noise_ceiling
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  evaluation_report,
  plots,
)
from pipeline.evaluation import datamodelling, retrainings
from pipeline.evaluation.options import Baseline, Design, Retraining
from pipeline.search.query_session import QuerySession
from pipeline.storage import files as storage, output_places
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  indexes: list[str],
  baselines: list[Baseline],
  against: str | None,
  query_split: str,
  design: Design,
  retraining: Retraining,
  out: str,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Trains on random parts of the corpus and compares with predictions.

  Args:
    console: to print to.
    task: that is trained again.
    indexes: to measure.
    baselines: to measure beside them.
    against: one more of either, or one of them, that the others are compared
      with; None for no comparison.
    query_split: TFDS split.
    design: of the parts.
    retraining: how often, and how many at a time.
    out: directory for results and losses.
    options: how indexes score.

  Raises:
    errors.InputError: Something is missing or out of range.
  """
  directory = output_places.check_results(out)
  retrainings.check(task.load())
  loaded = loaded_task.LoadedTask.load(task)
  measured = datamodelling.Datamodelling(loaded, query_split, design)
  if against in get_args(Baseline):
    baselines = [*baselines, against]  # type: ignore[list-item]
  elif against is not None:
    indexes, against = [*indexes, against], storage.absolute(against)
  predicted = {}
  for path in dict.fromkeys(map(storage.absolute, indexes)):
    session = QuerySession(path, task)
    with console.stage('scores') as progress:
      predicted[path] = measured.predicted(session, options, progress=progress)
    basis_notes.tell(console, session.record)
  for name in dict.fromkeys(baselines):
    with console.stage(name, 'examples') as progress:
      predicted[name] = measured.predicted_by_baseline(
        name, session.index, progress=progress
      )
  with console.stage('retrain', 'trainings') as progress:
    actual = measured.actual(
      storage.join(directory, 'retrainings'),
      retraining,
      progress=progress,
    )
  scores = {
    name: datamodelling.scores(values, actual)
    for name, values in predicted.items()
  }
  ceiling = None
  if retraining.num_repeats > 1:
    ceiling = noise_ceiling.noise_ceiling(actual, seed=design.seed)
  about = {
    'num_queries': len(measured.query_ids),
    **dataclasses.asdict(design),
    'num_repeats': retraining.num_repeats,
    'against': against,
  }
  report = _report(scores, ceiling, measured.query_ids, about)
  return report.show(console, directory)


def _report(
  scores: dict[str, np.ndarray],
  ceiling: evaluation.MeanInterval | None,
  query_ids: list[str],
  about: dict[str, Any],
) -> evaluation_report.Report:
  """Means of the scores, which are of each query, and what can be reached."""
  seed, against = about['seed'], about['against']
  rows: list[dict[str, Any]] = []
  tables = []
  for name, own in scores.items():
    found = evaluation.mean_interval(own, seed=seed)
    row = {'method': name, 'lds': found.mean}
    row |= {'low': found.low, 'high': found.high}
    if ceiling is not None:
      row['ceiling'] = ceiling.mean
    if against is not None:
      # Query by query: what makes one hard is not in the difference.
      paired = evaluation.mean_interval(own - scores[against], seed=seed)
      row |= evaluation_report.interval_columns('difference', paired)
    rows.append(row)
    of_queries = {'query_id': query_ids, 'spearman': own}
    tables.append(pa.table({'method': [name] * len(own), **of_queries}))
  size = f'{len(query_ids)} queries, {about["num_subsets"]} subsets'
  return evaluation_report.Report(
    'lds',
    _title(size, about),
    pa.Table.from_pylist(rows),
    result={
      'scores': rows,
      'ceiling': ceiling and ceiling._asdict(),
      **about,
    },
    tables={'lds': pa.concat_tables(tables)},
    plots={'lds': lambda: _plot(rows, ceiling, size)},
  )


def _title(size: str, about: dict[str, Any]) -> str:
  title = (
    f'linear datamodelling score: {size} of {about["fraction"]:.0%}, '
    f'num_repeats {about["num_repeats"]}, seed {about["seed"]}; 95 % interval '
    'over queries'
  )
  if about['against'] is None:
    return title
  return f'{title}; difference to {about["against"]}'


def _plot(
  rows: list[dict[str, Any]],
  ceiling: evaluation.MeanInterval | None,
  title: str,
) -> bytes:
  names = plots.short_names([row['method'] for row in rows])
  points = [
    plots.Interval(name, row['lds'], row['low'], row['high'])
    for name, row in zip(names, rows, strict=True)
  ]
  if ceiling is not None:
    points.append(plots.Interval('noise ceiling', *ceiling))
  return plots.intervals(
    {'linear datamodelling score': points}, title=title, joined=False
  )
