"""Fits a basis and shows it: for `fit-basis` and all that need one."""

from typing import Any

import jax

from influence_core import parameter_selection
from influence_core.devices import multi_device
from launch.output import basis_page, console as console_lib
from launch.running import processes
from pipeline.bases import fit_basis, fit_basis_config, stored_basis, task_basis
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference

_MAX_ROWS = 40


def fit_and_show(
  console: console_lib.Console,
  *,
  task: TaskReference,
  out: str,
  config: fit_basis_config.FitBasisConfig,
  resources: fit_basis_config.Resources,
  multi_process: bool = False,
) -> dict[str, Any]:
  """Fits a basis, or says that it is fitted already."""
  if multi_process:
    processes.join()
  if jax.process_index() > 0:
    console = console.quiet()  # The first process tells what all have done.
  loaded = loaded_task.LoadedTask.load(task)
  selected = _show_selection(console, loaded)
  path = storage.absolute(out)
  record = None
  if jax.process_index() == 0:
    record = task_basis.find(path, config, loaded)
  fitted = not multi_device.any_process(record is not None)
  if fitted:
    with console.stage('fit-basis', 'iterations') as progress:
      record = fit_basis.fit_basis(
        loaded,
        path,
        config,
        resources,
        announce=console.tell,
        progress=progress,
      )
  else:
    console.print(f'{path} is fitted already with these options.')
  if record is None:
    return {'fitted': False}
  _warn(console, record, config)
  return {
    'fitted': fitted,
    'selected': selected,
    **basis_page.describe_basis(console, record),
  }


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
