"""`influence random-basis`: the baseline beside `fit-basis`."""

from typing import Any

from launch.output import basis_page, console as console_lib
from pipeline.bases import fit_random_basis
from pipeline.bases.random_basis_config import RandomBasisConfig
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  out: str,
  config: RandomBasisConfig,
  max_rejected_fraction: float,
) -> dict[str, Any]:
  """Makes a random basis, or says what is there."""
  loaded = loaded_task.LoadedTask.load(task)
  with console.stage('random-basis'):
    record = fit_random_basis.fit_random_basis(
      loaded,
      storage.absolute(out),
      config,
      max_rejected_fraction=max_rejected_fraction,
    )
  return basis_page.describe_basis(console, record)
