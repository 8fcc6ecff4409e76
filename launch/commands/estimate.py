"""`influence estimate`: what projecting a corpus will take, before it does."""

import dataclasses
import time
from typing import Any

import jax
import tomli_w

from influence_core import errors
from influence_core.devices import program as device_program
from influence_core.projection.options import ProjectionOptions
from launch.flags import config_file
from launch.output import console as console_lib
from launch.running import trial_projector
from pipeline.index import (
  choices as index_choices,
  reader as index_reader,
  vector_codec,
)
from pipeline.projection import cost, measurement, preemption
from pipeline.projection.workload import Workload
from pipeline.search import index_session
from pipeline.tasks.reference import TaskReference
from pipeline.upkeep import run_records

_EXAMPLES = (10_000_000, 100_000_000)
_NO_PRICES = 'no prices at {}; --print_prices prints a table to fill in'


def run(
  console: console_lib.Console,
  *,
  task: TaskReference | None,
  basis: str | None,
  coordinates_per_layer: int,
  num_ranges: int,
  range_size: int,
  num_workers: list[int],
  examples: list[int],
  vector_dtype: index_choices.VectorDtype,
  projection_options: ProjectionOptions,
  prices: str | None,
  print_prices: bool,
  preemptions_per_hour: float,
  index: str | None,
) -> dict[str, Any]:
  """Times a few ranges, and says what all of them take."""
  if print_prices:
    text = tomli_w.dumps(dataclasses.asdict(cost.Prices(currency='USD')))
    console.print(text.rstrip())
    return {'prices': text}
  errors.check_at_least_one(
    coordinates_per_layer=coordinates_per_layer,
    num_ranges=num_ranges,
    range_size=range_size,
    **{'num_workers': min(num_workers), 'examples': min(examples or [1])},
  )
  table = None
  if prices is not None:
    table = cost.Prices.of(config_file.read_toml(prices, _NO_PRICES))
  conditions = preemption.Conditions(preemptions_per_hour)
  task, basis = _meant(task, basis, index)
  begun = time.monotonic()
  trial = trial_projector.make(
    console,
    task,
    basis,
    projection_options,
    coordinates_per_layer=coordinates_per_layer,
  )
  start_seconds = time.monotonic() - begun
  with console.stage('estimate', 'ranges'):
    workload = measurement.measure(
      trial.loaded,
      trial.projector,
      vector_codec.VectorCodec(vector_dtype, trial.eigenvalues, trial.columns),
      num_ranges=num_ranges,
      range_size=range_size,
      start_seconds=start_seconds,
      start_bytes=trial.basis_bytes
      + device_program.num_bytes(trial.loaded.params),
    )
  size = trial.loaded.task.corpus.num_examples
  found = [
    cost.estimate(workload, count, workers, table, conditions)
    for count in dict.fromkeys([size, *examples, *_EXAMPLES])
    for workers in num_workers
  ]
  _print(console, workload, found, table)
  if index is not None:
    _keep(index, workload, found[0])
  return {
    'task': trial.loaded.task.name,
    'device': jax.devices()[0].device_kind,
    'num_devices': jax.local_device_count(),
    'peak_bytes': trial.projector.peak_bytes,
    'basis_bytes': trial.basis_bytes,
    'workload': dataclasses.asdict(workload),
    'examples_per_second': 1 / workload.seconds,
    'estimates': [dataclasses.asdict(x) for x in found],
  }


def _meant(
  task: TaskReference | None, basis: str | None, index: str | None
) -> tuple[TaskReference, str | None]:
  """The task and the basis, those of the index where none are given."""
  if task is not None:
    return task, basis
  if index is None:
    raise errors.InputError(
      'it is not known which task; give --task, or --index of an index that '
      'was made with it'
    )
  opened = index_reader.Index(index)
  made_with = basis or opened.manifest.provenance.basis
  return index_session.task_of(opened), made_with


def _print(
  console: console_lib.Console,
  workload: Workload,
  found: list[cost.Estimate],
  prices: cost.Prices | None,
) -> None:
  parts = {
    'reading and preprocessing': workload.read_seconds,
    'projection': workload.project_seconds,
    'writing': workload.write_seconds,
  }
  console.table(
    f'an example takes {workload.seconds * 1e3:.3g} ms on this machine, and '
    f'{workload.index_bytes:,.0f} bytes; a worker starts in '
    f'{workload.start_seconds:.1f} s',
    ['part', 'milliseconds', 'share'],
    [
      [name, f'{x * 1e3:.3g}', f'{x / workload.seconds:.0%}']
      for name, x in parts.items()
    ],
  )
  headings = ['examples', 'workers', 'worker hours', 'hours', 'index, GB']
  headings += ['wasted', 'starts, GB', 'reads', 'writes']
  if prices is not None:
    headings += [f'cost, {prices.currency}', 'a month']
  console.table(
    'with workers such as this machine, one range at a time each',
    headings,
    [_cells(x) for x in found],
  )


def _cells(x: cost.Estimate) -> list[str]:
  cells = [
    *(f'{x.num_examples:,}', f'{x.num_workers:,}', f'{x.worker_hours:,.3g}'),
    *(f'{x.wall_hours:,.3g}', f'{x.index_bytes / 1e9:,.3g}'),
    *(f'{x.wasted_share:.1%}', f'{x.start_bytes / 1e9:,.3g}'),
    *(f'{x.num_reads:,}', f'{x.num_writes:,}'),
  ]
  costs = x.cost, x.cost_a_month
  return cells + [f'{value:,.2f}' for value in costs if value is not None]


def _keep(index: str, workload: Workload, found: cost.Estimate) -> None:
  run_records.save(
    index,
    run_records.RunRecord(
      'estimate',
      run_records.now(),
      found.num_examples,
      found.num_workers,
      found.wall_hours * 3600,
      dataclasses.asdict(workload),
    ),
  )
