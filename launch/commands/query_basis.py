"""`influence query-basis`: the methods that solve for every query."""

from typing import Any

from launch.output import basis_page, console as console_lib
from pipeline.bases import fit_query_basis
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  out: str,
  config: QueryBasisConfig,
  max_rejected_fraction: float,
) -> dict[str, Any]:
  """Solves for the queries, or says what is there."""
  loaded = loaded_task.LoadedTask.load(task)
  with console.stage('query-basis', 'queries') as progress:
    record = fit_query_basis.fit_query_basis(
      loaded,
      storage.absolute(out),
      config,
      max_rejected_fraction=max_rejected_fraction,
      progress=progress,
    )
  return basis_page.describe_basis(console, record)
