"""`influence evaluate sensitivity`: what do the figures depend on?

Every knob is turned by itself, all others staying at their defaults, or at what
is given for them. Bases, indexes and retrainings are kept in --out, so that a
second run, or one with more values, computes what is new.
"""

from collections.abc import Mapping
import dataclasses
import functools
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.commands import (
  evaluate_detection,
  evaluate_lds,
  fit_basis,
)
from launch.flags import sensitivity
from launch.output import console as console_lib, plots, result_tables
from launch.running import command_line
from pipeline.bases import fit_basis_config
from pipeline.storage import files as storage, fingerprints, output_places
from pipeline.tasks.reference import TaskReference

# Of intervals.
_NUM_BOOTSTRAP = 100


class _Measures(NamedTuple):
  """What is measured of every setting.

  Attributes:
    task: whose index it is.
    query_split: for the linear datamodelling score; None for none of it.
    bad: condition, for detection; None for none of it.
    num_subsets: halves to train on.
    num_workers: trainings at a time.
    seed: of halves and intervals.
    out: directory.
  """

  task: TaskReference
  query_split: str | None
  bad: str | None
  num_subsets: int
  num_workers: int
  seed: int
  out: str

  def figures(
    self,
    console: console_lib.Console,
    index: str,
    options: ScoreOptions,
  ) -> dict[str, tuple[float, float, float]]:
    """Each metric with its interval, by name."""
    found = {}
    if self.query_split is not None:
      result = evaluate_lds.run(
        console,
        task=self.task,
        indexes=[index],
        query_split=self.query_split,
        num_subsets=self.num_subsets,
        fraction=0.5,
        num_repeats=1,
        num_workers=self.num_workers,
        seed=self.seed,
        out=self.out,
        options=options,
      )
      [row] = result['scores']
      found['lds'] = (row['lds'], row['low'], row['high'])
    if self.bad is not None:
      result = evaluate_detection.run(
        console,
        index=index,
        bad=self.bad,
        where=None,
        num_first=100,
        num_bootstrap=_NUM_BOOTSTRAP,
        seed=self.seed,
        out=None,
        options=options,
      )
      by_score = {row['score']: row for row in result['scores']}
      row, name = by_score['self_influence'], 'average_precision'
      found[name] = (row[name], row[f'{name}_low'], row[f'{name}_high'])
    return found


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  knobs: Mapping[str, tuple[str, ...]],
  fixed: Mapping[str, str],
  query_split: str | None,
  bad: str | None,
  num_subsets: int,
  num_workers: int,
  seed: int,
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
  measures = _Measures(
    task, query_split, bad, num_subsets, num_workers, seed, out
  )
  base = sensitivity.Setting(
    fit_basis_config.FitBasisConfig(seed=seed, num_trace_probes=0),
    ScoreOptions(),
  ).with_fixed(fixed)
  rows: list[dict[str, Any]] = []
  wanted = sensitivity.settings(base, knobs)
  with console.stage('sensitivity', 'settings') as progress:
    for number, (knob, value, setting) in enumerate(wanted):
      quiet = console.quiet()
      index = _make_index(quiet, task, setting, out)
      figures = measures.figures(quiet, index, setting.options)
      for metric, (mean, low, high) in figures.items():
        rows.append(
          {
            'knob': knob,
            'value': value,
            'metric': metric,
            'mean': mean,
            'low': low,
            'high': high,
          }
        )
      progress(number + 1, len(wanted))
  table = pa.Table.from_pylist(rows)
  result_tables.print_rows(
    console, f'one knob at a time; 95 % intervals, seed {seed}', table
  )
  result = {
    'fixed': dict(fixed),
    'query_split': query_split,
    'bad': bad,
    'num_subsets': num_subsets,
    'seed': seed,
    'rows': rows,
  }
  shown = {
    f'sensitivity_{knob}': functools.partial(
      _plot, table.filter(pc.field('knob') == knob), knob
    )
    for knob in knobs
  }
  written = result_tables.write_result(
    out, 'sensitivity', result, {'sensitivity': table}, shown
  )
  console.print(f'wrote {", ".join(written)} to {out}')
  return result


def _make_index(
  console: console_lib.Console,
  task: TaskReference,
  setting: sensitivity.Setting,
  out: str,
) -> str:
  """The index of a setting; what is there already is used."""
  selecting = task.selecting(setting.parameter_paths)
  setting = setting.within(selecting.load().num_selected())
  name = fingerprints.of_json(
    [
      dataclasses.asdict(setting.config),
      setting.parameter_paths,
      task.to_json(),
    ]
  )
  basis = storage.join(out, 'bases', name)
  index = storage.join(out, 'indexes', name)
  fit_basis.run(
    console,
    task=selecting,
    out=basis,
    config=setting.config,
    resources=fit_basis_config.Resources(),
  )
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
