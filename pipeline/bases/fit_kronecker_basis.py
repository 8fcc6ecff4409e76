"""Fits the subspaces of all layers and stores them."""

import time

from influence_core.subspaces import (
  kronecker,
  layers as layers_lib,
  subspace_basis,
)
from pipeline.bases import (
  curvature_roots,
  curvature_sample,
  stored_basis,
  task_basis,
)
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.index import choices as index_choices
from pipeline.tasks import loaded_task


def fit_kronecker_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: KroneckerConfig,
  *,
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION,
) -> stored_basis.BasisRecord:
  """Fits subspaces on one fixed random sample and stores them at `path`.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what to fit.
    max_rejected_fraction: of the sample; more unusable examples are an error.

  Raises:
    errors.InputError: Something else is at `path`, it cannot be written, too
      many examples of the sample cannot be used, or the task has no split loss.
  """
  if record := task_basis.find(path, config, loaded):
    return record
  started = time.monotonic()
  samples = curvature_sample.CurvatureSamples(
    loaded,
    config.sample_size,
    config.seed,
    max_rejected_fraction=max_rejected_fraction,
  )
  roots = curvature_roots.CurvatureRoots.of(
    loaded, config.curvature, num_draws=config.num_draws, seed=config.seed
  )
  examples = samples.first()
  sample = roots.sample(loaded, examples)
  layers = layers_lib.find(sample.gradients, sample.leaves, roots.few(examples))
  fitted = kronecker.fit(
    sample,
    layers,
    config.coordinates_per_layer,
    l2_weight=loaded.task.l2_weight,
    seed=config.seed,
  )
  eigenvalues, columns = subspace_basis.join_columns(
    layers.stacks, fitted.stacks
  )
  report = subspace_basis.KroneckerReport(
    columns,
    layers.stacks,
    fitted.left_out,
    config.curvature,
    roots.num_draws,
    roots.is_exact,
    curvature_sample.num_used(examples),
    time.monotonic() - started,
    samples.rejected,
  )
  basis = subspace_basis.SubspaceBasis(
    eigenvalues,
    {path: one.directions for path, one in fitted.stacks.items()},
    report,
  )
  return task_basis.save(
    path, loaded, config, eigenvalues, basis.arrays(), report
  )
