"""A projection made ready: what is to be done, checked before it begins."""

import dataclasses

from influence_core.projection import projector as gradient_projection
from pipeline.bases import stored_basis
from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.projection import plan as plan_lib, worker as projection_worker
from pipeline.projection.request import ProjectionRequest
from pipeline.storage import files as storage, output_places
from pipeline.tasks import loaded_task, padding


@dataclasses.dataclass(frozen=True)
class ProjectionJob:
  """What a run is to do.

  Attributes:
    plan: what the index is to hold.
    changes: what of it is missing.
    settings: for the workers.
    padding: what sequences are padded to, in a line; None without any.
  """

  plan: plan_lib.Plan
  changes: plan_lib.Changes
  settings: projection_worker.ProjectionSettings
  padding: str | None = None

  @property
  def index(self) -> str:
    """Its absolute path."""
    return self.settings.request.index

  @property
  def max_rejected_fraction(self) -> float:
    """Nothing is published when more are unusable."""
    return self.settings.request.max_rejected_fraction

  def with_journal(self, directory: str) -> 'ProjectionJob':
    """The same with a journal of its workers, which are on this machine."""
    settings = dataclasses.replace(self.settings, journal=directory)
    return dataclasses.replace(self, settings=settings)

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


def prepare(request: ProjectionRequest) -> ProjectionJob:
  """Loads and checks everything, and compares with what is published.

  Raises:
    errors.InputError: Something is missing, wrong or does not belong together.
  """
  gradient_projection.check_batch_size(request.options.batch_size)
  index = storage.absolute(request.index)
  output_places.check(index, 'index')
  record = stored_basis.load_record(request.basis)
  task = request.task.selecting(record.config['parameter_paths'])
  loaded = loaded_task.LoadedTask.unchecked(
    task, probe=stored_basis.load_probe(record)
  )
  stored_basis.check_belongs(record, loaded.fingerprints)
  loaded.check_loss()
  range_size = request.range_size
  if request.per_token:
    loaded = loaded.by_token()
    # As many rows as a range of examples has, or thereabouts.
    range_size = max(1, range_size // loaded.num_tokens)
  settings = projection_worker.ProjectionSettings(
    dataclasses.replace(request, task=task, basis=record.path, index=index),
    task_fingerprints=loaded.fingerprints,
    basis_fingerprint=record.fingerprint,
  )
  provenance = manifest_lib.Provenance(
    task.to_json(),
    record.path,
    record.eigenvalues,
    settings.fingerprints,
    record.query_ids,
    record.layers,
    record.mean_curvature,
  )
  plan = plan_lib.make_plan(loaded.task.corpus, provenance, range_size)
  largest = max(item.num_examples for item in plan.ranges)
  settings = dataclasses.replace(settings, largest_range=largest)
  changes = plan_lib.find_changes(index, plan)
  _check_columns(index, changes, loaded)
  described = None
  if not changes.is_empty:
    described = padding.describe(loaded.task, loaded.form)
  return ProjectionJob(plan, changes, settings, described)


def _check_columns(
  index: str, changes: plan_lib.Changes, loaded: loaded_task.LoadedTask
) -> None:
  """Rows that are reused and rows that come must have the same columns."""
  shard = next((x for x in changes.reused if x.num_written), None)
  if shard:
    loaded.form.columns.check_same(
      index_format.read_rows(index, shard).schema, f'the index at {index}'
    )
