"""Makes and stores a random basis, so that every later stage serves it."""

import time

import numpy as np

from influence_core import errors, parameter_selection
from influence_core.baselines import random_basis
from influence_core.devices import memory as device_memory
from influence_core.eigenpairs import reports
from influence_core.projection.options import ProjectionOptions
from pipeline.bases import (
  curvature_sample,
  stored_basis,
  task_basis,
)
from pipeline.bases.random_basis_config import RandomBasisConfig
from pipeline.index import choices as index_choices
from pipeline.tasks import checked_projector, loaded_task


def fit_random_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: RandomBasisConfig,
  *,
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION,
) -> stored_basis.BasisRecord:
  """Makes a random basis and stores it at `path`, or finds it there.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what basis.
    max_rejected_fraction: of the sample; more unusable examples are an error.

  Raises:
    errors.InputError: Something else is at `path`, it cannot be written, or too
      many examples of the sample cannot be used.
  """
  if record := task_basis.find(path, config, loaded):
    return record
  _check_size(loaded, config)
  started = time.monotonic()
  vectors = {
    name: random_basis.random_vectors(
      leaf.shape,
      name,
      projection_dim=config.projection_dim,
      seed=config.seed,
    )
    for name, leaf in loaded.selected.items()
  }
  eigenvalues, rotation, sample_size = np.ones(config.projection_dim), None, 0
  samples = curvature_sample.CurvatureSamples(
    loaded,
    config.sample_size,
    config.seed,
    max_rejected_fraction=max_rejected_fraction,
  )
  if config.method == 'random_gram':
    projections = _projected_sample(loaded, vectors, config, samples)
    eigenvalues, rotation = random_basis.gram_pairs(projections)
    sample_size = len(projections)
  return task_basis.save(
    path,
    loaded,
    config,
    eigenvalues,
    random_basis.rotate(vectors, rotation),
    reports.RandomReport(
      config.method,
      sample_size,
      time.monotonic() - started,
      samples.rejected,
    ),
  )


def _check_size(
  loaded: loaded_task.LoadedTask, config: RandomBasisConfig
) -> None:
  """Refuses more vectors than there are directions, or than fit memory."""
  dim = config.projection_dim
  parameter_selection.check_projection_dim(dim, loaded.selected)
  size = parameter_selection.num_parameters(loaded.selected)
  num_bytes = 4 * dim * size
  if config.method == 'random_gram':
    # The projector's copy; the Gram matrix, its eigenvectors and workspace.
    num_bytes += 4 * dim * size + 3 * 8 * dim**2
  device_memory.check_host_memory(
    num_bytes,
    f'{dim} random vectors of {size:,} parameters',
    'pass a smaller --projection_dim or select fewer --parameter_paths',
  )


def _projected_sample(
  loaded: loaded_task.LoadedTask,
  vectors: dict[str, np.ndarray],
  config: RandomBasisConfig,
  samples: curvature_sample.CurvatureSamples,
) -> np.ndarray:
  """[sample_size, projection_dim] float32."""
  sample = samples.first()
  projector = checked_projector.make_projector(
    loaded,
    vectors,
    ProjectionOptions(),
    num_examples=config.sample_size,
  )
  projections = np.asarray(projector.project(sample).projections)
  finite = np.isfinite(projections).all(axis=1)
  if not finite.any():
    raise errors.InputError(
      f'no gradient of {len(finite)} sampled examples is finite; check the '
      'parameters and preprocess'
    )
  return projections[finite]
