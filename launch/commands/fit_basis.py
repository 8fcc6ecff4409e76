"""`influence fit-basis`: the leading eigenpairs of the Hessian, stored."""

from typing import Any

from launch import console as console_lib
from launch.commands import describe
from pipeline import fit_basis, loaded_task, storage
from pipeline import task as task_lib


def run(
  console: console_lib.Console,
  *,
  task: task_lib.TaskReference,
  out: str,
  **config_values: Any,
) -> dict[str, Any]:
  """Fits a basis, or says that it is fitted already."""
  config = fit_basis.FitBasisConfig(**config_values)
  loaded = loaded_task.LoadedTask.load(task)
  path = storage.absolute(out)
  record = fit_basis.find_fitted(path, config, loaded)
  fitted = record is None
  if record is None:
    with console.stage('fit-basis', 'iterations') as progress:
      record = fit_basis.fit_basis(loaded, path, config, progress=progress)
  else:
    console.print(f'{path} is fitted already with these options.')
  if record.projection_dim < config.projection_dim:
    console.warn(
      f'the basis has {record.projection_dim} pairs, not '
      f'{config.projection_dim}: no more eigenvalues of the sample are '
      f'{"usable" if config.keep_negative else "positive"}'
    )
  if record.report.num_unreliable:
    console.warn(
      f'{record.report.num_unreliable} of {record.projection_dim} pairs have a '
      'residual above 10 %; raise --num_iterations or lower --projection_dim'
    )
  return {'fitted': fitted, **describe.describe_basis(console, record)}
