"""Fits a basis and shows it: for `fit-basis` and all that need one.

Where one is there that ended in NO-GO, more of it is fitted.
"""

import shlex
from typing import Any

import jax

from influence_core import parameter_selection
from influence_core.devices import multi_device
from launch.output import basis_page, console as console_lib
from launch.running import command_line, processes
from pipeline.bases import (
  fit_basis,
  fit_basis_config,
  fit_kronecker_basis,
  kept_vectors,
  stored_basis,
  task_basis,
)
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference

_MAX_ROWS = 40


def fit_and_show(
  console: console_lib.Console,
  *,
  task: TaskReference,
  out: str,
  config: fit_basis_config.FitBasisConfig | KroneckerConfig,
  resources: fit_basis_config.Resources,
  multi_process: bool = False,
) -> dict[str, Any]:
  """Fits a basis or more of it, or says that it is fitted already."""
  if multi_process:
    processes.join()
  if jax.process_index() > 0:
    console = console.quiet()  # The first process tells what all have done.
  loaded = loaded_task.LoadedTask.load(task)
  selected = _show_selection(console, loaded)
  path = storage.absolute(out)
  if isinstance(config, KroneckerConfig):
    fitted, found = _fit_subspaces(console, loaded, path, config, resources)
    shown = basis_page.describe_basis(console, found)
    _suggest(console, task, found)
    return {'fitted': fitted, 'selected': selected, **shown}
  record = None
  if jax.process_index() == 0:
    record = kept_vectors.find_basis(path, config, resources, loaded)
  changed = record and kept_vectors.difference(record, config)
  fitted = not multi_device.any_process(bool(record and not changed))
  if changed:
    name, found, value = changed
    console.tell(
      f'{path} has {name} {found}, not {value}: it is fitted further and '
      'replaced when that is done'
    )
  if fitted:
    with console.stage('fit-basis', 'iterations') as progress:
      record = fit_basis.fit_basis(
        loaded,
        path,
        config,
        resources,
        replaced=record,
        announce=console.tell,
        progress=progress,
      )
  else:
    _tell_found(console, path)
  if record is None:
    return {'fitted': False}
  _warn(console, record, config)
  _suggest(console, task, record)
  return {
    'fitted': fitted,
    'selected': selected,
    **basis_page.describe_basis(console, record),
    'krylov_vectors': _show_kept_vectors(console, record, resources),
  }


def _fit_subspaces(
  console: console_lib.Console,
  loaded: loaded_task.LoadedTask,
  path: str,
  config: KroneckerConfig,
  resources: fit_basis_config.Resources,
) -> tuple[bool, stored_basis.BasisRecord]:
  """Whether they were fitted, and the basis."""
  if not (config.curvature or loaded.task.split_loss):
    console.tell(
      'the task has no split_loss, so that the curvature is that of '
      'empirical_fisher; with one, a Gauss-Newton matrix predicts better'
    )
  if record := task_basis.find(path, config, loaded):
    _tell_found(console, path)
    return False, record
  with console.stage('fit-basis', 'blocks') as progress:
    record = fit_kronecker_basis.fit_kronecker_basis(
      loaded,
      path,
      config,
      resources=resources,
      progress=progress,
    )
  return True, record


def _suggest(
  console: console_lib.Console,
  task: TaskReference,
  record: stored_basis.BasisRecord,
) -> None:
  """Says what a good basis is for."""
  if not record.report.objections:
    flags = shlex.join(command_line.task_flags(task))
    console.suggest(
      f'influence project {flags} --basis {shlex.quote(record.path)} --index '
      'INDEX'
    )


def _tell_found(console: console_lib.Console, path: str) -> None:
  console.print(f'{path} is fitted already with these options.')


def _show_kept_vectors(
  console: console_lib.Console,
  record: stored_basis.BasisRecord,
  resources: fit_basis_config.Resources,
) -> dict[str, Any] | None:
  """Says what a basis that is not good yet can go on from."""
  directory = kept_vectors.work_directory(record.path, resources)
  num_bytes = kept_vectors.num_bytes(directory)
  if not (record.report.objections and num_bytes):
    return None
  console.print(
    f'its Krylov vectors are kept, {num_bytes:,} bytes at {directory}: the '
    'same command with more --num_iterations, auto or another --projection_dim '
    'goes on from them; delete them if you will not'
  )
  return {'directory': directory, 'num_bytes': num_bytes}


def _show_selection(
  console: console_lib.Console, loaded: loaded_task.LoadedTask
) -> dict[str, int]:
  """Prints which parameters are selected, the largest if there are many."""
  selected = loaded.selected
  paths = list(selected)
  if len(paths) > _MAX_ROWS:
    largest = sorted(paths, key=lambda path: -selected[path].size)
    paths = sorted(largest[:_MAX_ROWS])
  size = parameter_selection.num_parameters(selected)
  total = parameter_selection.num_parameters(
    parameter_selection.all_parameters(loaded.params)
  )
  console.table(
    f'selected parameters of {loaded.task.name}',
    ['path', 'shape', 'size'],
    [
      [path, str(list(selected[path].shape)), f'{selected[path].size:,}']
      for path in paths
    ],
  )
  if len(paths) < len(selected):
    console.print(f'... and {len(selected) - len(paths)} smaller ones')
  console.print(
    f'{size:,} of {total:,} parameters in {len(selected)} arrays; a vector '
    f'takes {4 * size:,} bytes in float32, {2 * size:,} in bfloat16'
  )
  return {path: int(leaf.size) for path, leaf in selected.items()}


def _warn(
  console: console_lib.Console,
  record: stored_basis.BasisRecord,
  config: fit_basis_config.FitBasisConfig,
) -> None:
  if record.projection_dim < config.projection_dim:
    console.warn(
      f'the basis has {record.projection_dim} pairs, not '
      f'{config.projection_dim}: no more eigenvalues of the sample are '
      f'{"usable" if config.keep_negative else "positive"}'
    )
