"""`influence evaluate sensitivity`: what do the figures depend on?

Every knob is turned by itself, all others staying at their defaults, or at what
is given for them. Bases, indexes and retrainings are kept in --out, so that a
second run, or one with more values, computes what is new.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from influence_core.scores import evaluation
from influence_core.scores.options import ScoreOptions
from launch.flags import sensitivity
from launch.output import console as console_lib, evaluation_report, plots
from launch.running import basis_fit, command_line
from pipeline.bases import fit_basis_config, kept_vectors
from pipeline.evaluation import datamodelling, detection, retrainings
from pipeline.evaluation.options import Design, Retraining
from pipeline.search.query_session import QuerySession
from pipeline.storage import files as storage, fingerprints, output_places
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference

# Of intervals of detection.
_NUM_BOOTSTRAP = 100
# Examples that somebody would look at.
_NUM_FIRST = 100


@dataclasses.dataclass(frozen=True)
class _Measures:
  """What is measured of every setting.

  Attributes:
    seed: of intervals.
    bad: condition, for detection; None for none of it.
    measured: for the linear datamodelling score; None for none of it.
    losses: [num_parts, num_repeats, num_queries] after training again, for
      that score.
  """

  seed: int
  bad: str | None
  measured: datamodelling.Datamodelling | None = None
  losses: np.ndarray | None = None

  def figures(
    self, session: QuerySession, options: ScoreOptions
  ) -> dict[str, evaluation.MeanInterval]:
    """Each metric with its interval, by name."""
    if options.projection_dim is not None:  # The basis may have fewer.
      dim = min(options.projection_dim, session.index.projection_dim)
      options = dataclasses.replace(options, projection_dim=dim)
    found: dict[str, evaluation.MeanInterval] = {}
    if self.measured is not None and self.losses is not None:
      predicted = self.measured.predicted(session, options)
      scores = datamodelling.scores(predicted, self.losses)
      found['lds'] = evaluation.mean_interval(scores, seed=self.seed)
    if self.bad is not None:
      found['average_precision'] = self._detection(session, options, self.bad)
    return found

  def _detection(
    self, session: QuerySession, options: ScoreOptions, bad: str
  ) -> evaluation.MeanInterval:
    rankings = detection.read_rankings(
      session.index, bad=bad, where=None, options=options, seed=self.seed
    )
    table = detection.measure(
      rankings,
      num_first=_NUM_FIRST,
      num_bootstrap=_NUM_BOOTSTRAP,
      seed=self.seed,
    )
    by_score = {row['score']: row for row in table.to_pylist()}
    row, name = by_score['self_influence'], 'average_precision'
    ends = (row[f'{name}{end}'] for end in ('', '_low', '_high'))
    return evaluation.MeanInterval(*ends)


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  knobs: Mapping[str, str],
  fixed: Mapping[str, str],
  query_split: str | None,
  bad: str | None,
  design: Design,
  retraining: Retraining,
  out: str,
) -> dict[str, Any]:
  """Measures the figures at every value of every knob.

  Raises:
    errors.InputError: A knob or a value is unknown, or there is no metric.
  """
  if query_split is None and bad is None:
    raise errors.InputError(
      'there is nothing to measure; give --query_split for the linear '
      'datamodelling score, --bad for detection, or both'
    )
  out = output_places.check_results(out)
  measures = _Measures(design.seed, bad)
  if query_split is not None:
    retrainings.check(task.load())
  base = sensitivity.Setting(
    fit_basis_config.FitBasisConfig(seed=design.seed, num_trace_probes=0),
    ScoreOptions(),
  ).with_fixed(fixed)
  values = sensitivity.values_of(knobs)
  wanted = sensitivity.share_bases(sensitivity.settings(base, values))
  if query_split is not None:
    measures = _with_losses(
      console, measures, task, query_split, design, retraining, out
    )
  rows = _measure_all(console, measures, task, wanted, out)
  asked = {
    'fixed': dict(fixed),
    'query_split': query_split,
    'bad': bad,
    'num_subsets': design.num_subsets,
    'fraction': design.fraction,
    'seed': design.seed,
  }
  return _report(rows, asked).show(console, out)


def _measure_all(
  console: console_lib.Console,
  measures: _Measures,
  task: TaskReference,
  wanted: list[tuple[str, str, sensitivity.Setting]],
  out: str,
) -> list[dict[str, Any]]:
  """A row for each figure of each setting."""

  @functools.lru_cache(maxsize=1)  # Settings of an index follow each other.
  def open_session(config, paths):
    index = _make_index(console.quiet(), task.selecting(paths), config, out)
    return QuerySession(index, task)

  rows = []
  with console.stage('sensitivity', 'settings') as progress:
    for number, (knob, value, setting) in enumerate(wanted):
      session = open_session(setting.config, setting.parameter_paths)
      figures = measures.figures(session, setting.options)
      rows += [
        {'knob': knob, 'value': value, 'metric': metric, **found._asdict()}
        for metric, found in figures.items()
      ]
      progress(number + 1, len(wanted))
  return rows


def _report(
  rows: list[dict[str, Any]], asked: dict[str, Any]
) -> evaluation_report.Report:
  table = pa.Table.from_pylist(rows)
  plot_of = {
    f'sensitivity_{knob}': functools.partial(
      _plot, table.filter(pc.field('knob') == knob), knob
    )
    for knob in dict.fromkeys(row['knob'] for row in rows)
  }
  return evaluation_report.Report(
    'sensitivity',
    f'one knob at a time; 95 % intervals, seed {asked["seed"]}',
    table,
    result={**asked, 'rows': rows},
    tables={'sensitivity': table},
    plots=plot_of,
  )


def _with_losses(
  console: console_lib.Console,
  measures: _Measures,
  task: TaskReference,
  query_split: str,
  design: Design,
  retraining: Retraining,
  out: str,
) -> _Measures:
  """The same with what training again does to the queries."""
  loaded = loaded_task.LoadedTask.load(task)
  measured = datamodelling.Datamodelling(loaded, query_split, design)
  with console.stage('retrain', 'trainings') as progress:
    losses = measured.actual(
      storage.join(out, 'retrainings'),
      retraining,
      progress=progress,
    )
  return dataclasses.replace(measures, measured=measured, losses=losses)


def _make_index(
  console: console_lib.Console,
  task: TaskReference,
  config: fit_basis_config.FitBasisConfig,
  out: str,
) -> str:
  """The index of a basis; what is there already is used."""
  config = config.within(task.load().num_selected())
  name = fingerprints.of_json(
    [dataclasses.asdict(config), task.parameter_paths, task.to_json()]
  )
  basis = storage.join(out, 'bases', name)
  index = storage.join(out, 'indexes', name)
  resources = fit_basis_config.Resources()
  basis_fit.fit_and_show(
    console, task=task, out=basis, config=config, resources=resources
  )
  # Another configuration has another name: nothing goes on from here.
  kept_vectors.remove(kept_vectors.work_directory(basis, resources))
  command_line.run(
    console,
    *('project', *command_line.task_flags(task)),
    *('--basis', basis, '--index', index),
  )
  return index


def _plot(rows: pa.Table, title: str) -> bytes:
  """Each metric over the values of a knob, with intervals."""
  series: dict[str, list[plots.Interval]] = {}
  for row in rows.to_pylist():
    series.setdefault(row['metric'], []).append(
      plots.Interval(row['value'], row['mean'], row['low'], row['high'])
    )
  return plots.intervals(series, title=title, joined=True)
