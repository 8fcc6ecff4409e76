"""A projection made ready: what is to be done, checked before it begins."""

import dataclasses

from influence_core import errors
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from pipeline.bases import stored_basis
from pipeline.index import (
  choices as index_choices,
  format as index_format,
)
from pipeline.projection import plan as plan_lib, worker as projection_worker
from pipeline.storage import files as storage, output_places
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


@dataclasses.dataclass(frozen=True)
class ProjectionJob:
  """What a run is to do.

  Attributes:
    plan: what the index is to hold.
    changes: what of it is missing.
    settings: for the workers.
    max_rejected_fraction: nothing is published when more are unusable.
  """

  plan: plan_lib.Plan
  changes: plan_lib.Changes
  settings: projection_worker.ProjectionSettings
  max_rejected_fraction: float

  @property
  def index(self) -> str:
    return self.settings.index

  def save_plan(self) -> str:
    """Stores the plan for the step that publishes; returns its path.

    Raises:
      errors.InputError: The index cannot be written.
    """
    storage.check_writable(self.index)
    return plan_lib.save(
      self.index,
      dataclasses.replace(
        self.plan, adopted_generation=self.changes.generation
      ),
    )


def prepare(
  *,
  task: TaskReference,
  basis: str,
  index: str,
  options: ProjectionOptions,
  vector_dtype: index_choices.VectorDtype,
  range_size: int,
  max_rejected_fraction: float,
) -> ProjectionJob:
  """Loads and checks everything, and compares with what is published.

  Args:
    task: how to make the task.
    basis: path of the basis.
    index: path of the index, new or not.
    options: how to project.
    vector_dtype: how projections are stored.
    range_size: examples of a unit of work, at most.
    max_rejected_fraction: nothing is published when more are unusable.

  Raises:
    errors.InputError: Something is missing, wrong or does not belong together.
  """
  errors.check_at_least_one(range_size=range_size)
  index_choices.check_rejected_fraction(max_rejected_fraction)
  gradient_projection.check_batch_size(options.batch_size)
  index = storage.absolute(index)
  output_places.check(index, 'index')
  record = stored_basis.load_record(basis)
  task = task.selecting(record.config['parameter_paths'])
  loaded = loaded_task.LoadedTask.unchecked(
    task, probe=stored_basis.load_probe(record)
  )
  stored_basis.check_belongs(record, loaded.fingerprints)
  loaded.check_loss()
  plan = plan_lib.make_plan(
    loaded.task.corpus,
    task=task.to_json(),
    basis=record.path,
    eigenvalues=record.eigenvalues,
    query_ids=record.query_ids,
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
    basis_dtype=options.basis_dtype,
    vector_dtype=vector_dtype,
    range_size=range_size,
  )
  settings = projection_worker.ProjectionSettings(
    task=task,
    basis=record.path,
    index=index,
    options=options,
    vector_dtype=vector_dtype,
    range_size=max(item.num_examples for item in plan.ranges),
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
  )
  changes = plan_lib.changes(index, plan)
  _check_columns(index, changes, loaded)
  return ProjectionJob(plan, changes, settings, max_rejected_fraction)


def _check_columns(
  index: str, changes: plan_lib.Changes, loaded: loaded_task.LoadedTask
) -> None:
  """Rows that are reused and rows that come must have the same columns."""
  shard = next((x for x in changes.reused if x.num_written), None)
  if shard:
    loaded.form.columns.check_same(
      index_format.read_rows(index, shard).schema, f'the index at {index}'
    )
