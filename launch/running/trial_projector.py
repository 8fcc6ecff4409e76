"""A compiled projector to try: of a basis, or of random directions."""

from collections.abc import Mapping
import dataclasses

import numpy as np

from influence_core import parameter_selection, types
from influence_core.devices import memory as device_memory
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  factored_gradients,
  layers as layers_lib,
)
from influence_core.subspaces.columns import LayerColumns
from influence_core.subspaces.subspace_basis import SubspaceBasis
from launch.output import basis_notes, console as console_lib
from pipeline.bases import stored_basis
from pipeline.tasks import checked_projector, loaded_task
from pipeline.tasks.reference import TaskReference


@dataclasses.dataclass(frozen=True)
class Trial:
  """What a projecting worker makes.

  Attributes:
    loaded: the task.
    basis: that is projected on.
    projector: compiled.
    layers: of the model, where directions are random; else None.
  """

  loaded: loaded_task.LoadedTask
  basis: checked_projector.AnyBasis
  projector: checked_projector.Projector
  layers: layers_lib.Layers | None = None

  @property
  def eigenvalues(self) -> np.ndarray:
    """[projection_dim] float64; ones of random vectors."""
    if isinstance(self.basis, Mapping):
      [count] = {len(vectors) for vectors in self.basis.values()}
      return np.ones(count)
    return np.asarray(self.basis.eigenvalues)

  @property
  def columns(self) -> tuple[LayerColumns, ...]:
    """What columns stand for, of a basis of layers; else empty."""
    if isinstance(self.basis, SubspaceBasis):
      return self.basis.report.layers
    return ()

  @property
  def basis_bytes(self) -> int:
    """Of the basis on storage."""
    if isinstance(self.basis, SubspaceBasis):
      return sum(array.nbytes for _, array in self.basis.arrays())
    size = parameter_selection.num_parameters(self.loaded.selected)
    return 4 * size * len(self.eigenvalues)


def make(
  console: console_lib.Console,
  task: TaskReference,
  basis: str | None,
  options: ProjectionOptions,
  *,
  coordinates_per_layer: int,
  projection_dim: int | None = None,
) -> Trial:
  """Loads a task and compiles its projection.

  Args:
    console: that shows progress.
    task: how the task is made.
    basis: path; None for random directions.
    options: of the projection.
    coordinates_per_layer: of random directions.
    projection_dim: number of random vectors instead of them.

  Raises:
    errors.InputError: Something of the task or the basis is missing or wrong.
  """
  gradient_projection.check_batch_size(options.batch_size)
  layers = None
  vectors: checked_projector.AnyBasis
  if basis is not None:
    loaded, vectors = _load(console, task, basis)
  else:
    loaded = loaded_task.LoadedTask.unchecked(task)
    loaded.check_loss()
    layers = _find_layers(loaded)
    if projection_dim:
      vectors = _random_vectors(loaded.selected, projection_dim)
    else:
      vectors = SubspaceBasis.random(layers, coordinates_per_layer)
  with console.stage('compile'):
    projector = checked_projector.compile_projector(loaded, vectors, options)
  return Trial(loaded, vectors, projector, layers)


def _load(
  console: console_lib.Console, task: TaskReference, basis: str
) -> tuple[loaded_task.LoadedTask, checked_projector.AnyBasis]:
  """The task and the basis."""
  record = stored_basis.load_record(basis)
  loaded = loaded_task.LoadedTask.unchecked(
    task.selecting(record.config['parameter_paths'])
  )
  probed = loaded.with_probe(stored_basis.load_probe(record))
  stored_basis.check_belongs(record, probed.fingerprints)
  loaded.check_loss()
  basis_notes.tell(console, record)
  return loaded, stored_basis.load(record)


def _find_layers(loaded: loaded_task.LoadedTask) -> layers_lib.Layers:
  gradients = factored_gradients.FactoredGradients(
    loaded.task.per_example_loss,
    loaded.params,
    selected=loaded.selected,
    features=loaded.checked_features,
  )
  leaves = parameter_selection.all_parameters(loaded.params)
  return layers_lib.find(gradients, leaves, loaded.checked_features)


def _random_vectors(
  selected: types.SelectedParameters, projection_dim: int
) -> dict[str, np.ndarray]:
  """Vectors of about unit length; memory and rate are those of any basis."""
  parameter_selection.check_projection_dim(projection_dim, selected)
  generator = np.random.default_rng(0)
  size = parameter_selection.num_parameters(selected)
  device_memory.check_host_memory(
    2 * 4 * projection_dim * size,  # The projector has a copy.
    f'{projection_dim} vectors of {size:,} parameters',
    'pass a smaller --projection_dim',
  )
  return {
    path: generator.standard_normal(
      (projection_dim, *leaf.shape), dtype=np.float32
    )
    / np.float32(np.sqrt(size))
    for path, leaf in selected.items()
  }
