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
  if against in get_args(Baseline):
    baselines = [*baselines, against]  # type: ignore[list-item]
  elif against is not None:
    indexes, against = [*indexes, [against]], storage.absolute(against)
  sessions = open_compared(_distinct(indexes), task, scales)
  task = task or sessions[0].task
  retrainings.check(task.load())
  loaded = loaded_task.LoadedTask.load(task)
  measured = datamodelling.Datamodelling(loaded, query_split, design)
  predicted: dict[str, np.ndarray] = {}
  for session in sessions:
    with console.stage('scores') as progress:
      predicted[session.index.path] = measured.predicted(
        session, options, progress=progress
      )
    basis_notes.tell(console, *session.records)
  for name in dict.fromkeys(baselines):
    with console.stage(name, 'examples') as progress:
      predicted[name] = measured.predicted_by_baseline(
        name, sessions[0].index, progress=progress
      )
  with console.stage('retrain', 'trainings') as progress:
    actual = measured.actual(
      storage.join(directory, 'retrainings'),
      retraining,
      progress=progress,
    )
  report = _report(predicted, actual, measured.query_ids, design, against)
  return report.show(console, directory)


def _distinct(indexes: list[list[str]]) -> list[list[str]]:
  """Each index or ensemble once, by absolute paths."""
  absolute = (tuple(map(storage.absolute, paths)) for paths in indexes)
  return [list(paths) for paths in dict.fromkeys(absolute)]


def _report(
  predicted: dict[str, np.ndarray],
  actual: np.ndarray,
  query_ids: list[str],
  design: Design,
  against: str | None,
) -> evaluation_report.Report:
  """Means of the scores, which are of each query, and what can be reached."""
  seed, num_repeats = design.seed, actual.shape[1]
  ceiling = None
  if num_repeats > 1:
    ceiling = noise_ceiling.noise_ceiling(actual, seed=seed)
  scores = {
    name: datamodelling.scores(values, actual)
    for name, values in predicted.items()
  }
  other = scores[against] if against else None
  rows = [
    {'method': name, **_figures(own, ceiling, other, seed)}
    for name, own in scores.items()
  ]
  tables = [
    pa.table(
      {'method': [name] * len(own), 'query_id': query_ids, 'spearman': own}
    )
    for name, own in scores.items()
  ]
  size = f'{len(query_ids)} queries, {design.num_subsets} subsets'
  title = (
    f'linear datamodelling score: {size} of {design.fraction:.0%}, num_repeats '
    f'{num_repeats}, seed {seed}; 95 % interval over queries'
  )
  return evaluation_report.Report(
    'lds',
    f'{title}; difference to {against}' if against else title,
    pa.Table.from_pylist(rows),
    result={
      'scores': rows,
      'ceiling': ceiling and ceiling._asdict(),
      'num_queries': len(query_ids),
      **dataclasses.asdict(design),
      'num_repeats': num_repeats,
      'against': against,
    },
    tables={'lds': pa.concat_tables(tables)},
    plots={'lds': lambda: _plot(rows, ceiling, size)},
  )


def _figures(
  scores: np.ndarray,
  ceiling: evaluation.MeanInterval | None,
  other: np.ndarray | None,
  seed: int,
) -> dict[str, float]:
  """Columns of a method, of its scores and of those to compare with."""
  found = evaluation.mean_interval(scores, seed=seed)
  row = {'lds': found.mean, 'low': found.low, 'high': found.high}
  if ceiling is not None:
    row['ceiling'] = ceiling.mean
  if other is not None:
    # Query by query: what makes one hard is not in the difference.
    paired = evaluation.mean_interval(scores - other, seed=seed)
    row |= evaluation_report.interval_columns('difference', paired)
  return row


def _plot(
  rows: list[dict[str, Any]],
  ceiling: evaluation.MeanInterval | None,
  title: str,
) -> bytes:
  names = evaluation_report.short_names([row['method'] for row in rows])
  points = [
    plots.Interval(name, row['lds'], row['low'], row['high'])
    for name, row in zip(names, rows, strict=True)
  ]
  if ceiling is not None:
    points.append(plots.Interval('noise ceiling', *ceiling))
  return plots.intervals(
    {'linear datamodelling score': points}, title=title, joined=False
  )
