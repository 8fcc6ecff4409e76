"""`influence evaluate counterfactual`: training without the top proponents.

For each query, its k strongest proponents are left out of the training, and, to
compare, the first k of baselines and k random examples: does the query's loss
rise by more?
"""

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
from pipeline.evaluation import baselines as baseline_scores, retrainings
from pipeline.evaluation.options import Baseline, Retraining
from pipeline.search.query_session import QuerySession
from pipeline.storage import files as storage, output_places
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  indexes: list[str],
  scales: list[float] | None,
  query_split: str,
  baselines: list[Baseline],
  k: int,
  retraining: Retraining,
  seed: int,
  out: str,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Trains without proponents and without other examples.

  Raises:
    errors.InputError: Something is missing or out of range.
  """
  directory = output_places.check_results(out)
  session = QuerySession(indexes, task, scales=scales)
  session.index.check_examples('evaluate counterfactual')
  retrainings.check((task or session.task).load())
  if not 1 <= k < session.index.num_examples:
    raise errors.InputError(
      f'k is {k}, expected 1 to less than the {session.index.num_examples} '
      'examples'
    )
  projected = session.project(query_split)
  basis_notes.tell(console, *session.records)
  loaded, queries = session.loaded, projected.batch
  scores, ids = session.scores(projected, options)
  removed = {'proponents': _highest(scores, k)}
  for name in dict.fromkeys(baselines):
    scores, _ = baseline_scores.scores(name, session.index, loaded, query_split)
    removed[name] = _highest(scores, k)
  generator = np.random.default_rng(seed)
  count = len(queries.ids)
  removed['random'] = np.array(
    [generator.choice(len(ids), k, replace=False) for _ in range(count)]
  )
  everything = frozenset(retrainings.all_ids(loaded.task.corpus))
  parts = [
    everything,
    *(
      everything - {ids[x] for x in row}
      for places in removed.values()
      for row in places
    ),
  ]
  with console.stage('retrain', 'trainings') as progress:
    losses = retrainings.losses(
      loaded,
      queries,
      parts,
      storage.join(directory, 'retrainings'),
      retraining,
      progress=progress,
    ).mean(axis=1)
  own = np.arange(count)
  changes = {
    name: losses[1 + number * count + own, own] - losses[0]
    for number, name in enumerate(removed)
  }
  report = _report(queries.ids, changes, k=k, seed=seed)
  return report.show(console, directory)


def _highest(scores: np.ndarray, k: int) -> np.ndarray:
  """[num_queries, k] places of the highest of [num_queries, num_examples]."""
  return np.argsort(-scores, axis=1, kind='stable')[:, :k]


def _report(
  query_ids: list[str], changes: dict[str, np.ndarray], *, k: int, seed: int
) -> evaluation_report.Report:
  rows: list[dict[str, Any]] = []
  for name, values in changes.items():
    mean, low, high = evaluation.mean_interval(values, seed=seed)
    rows.append(
      {'removed': name, 'change_of_loss': mean, 'low': low, 'high': high}
    )
  count = len(query_ids)
  return evaluation_report.Report(
    'counterfactual',
    f'change of the loss of {count} queries when {k} examples are left out of '
    f'the training; 95 % interval over queries, seed {seed}',
    pa.Table.from_pylist(rows),
    result={'changes': rows, 'num_queries': count, 'k': k, 'seed': seed},
    tables={'counterfactual': pa.table({'query_id': query_ids, **changes})},
    plots={
      'counterfactual': lambda: _plot(
        rows, f'{count} queries without {k} examples'
      )
    },
  )


def _plot(rows: list[dict[str, Any]], title: str) -> bytes:
  points = [
    plots.Interval(x['removed'], x['change_of_loss'], x['low'], x['high'])
    for x in rows
  ]
  return plots.intervals({'change of loss': points}, title=title, joined=False)
