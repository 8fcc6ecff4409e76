"""Fits the subspaces of all layers and stores them."""

import dataclasses
import time

from influence_core import types
from influence_core.subspaces import (
  factored_sample,
  kronecker,
  layers as layers_lib,
  subspace_basis,
)
from pipeline.bases import (
  curvature_roots,
  curvature_sample,
  fit_basis_config,
  kept_passes,
  sample_blocks,
  stored_basis,
  task_basis,
)
from pipeline.bases.kronecker_config import Curvature, KroneckerConfig
from pipeline.storage import files as storage, fingerprints
from pipeline.tasks import loaded_task

# Gradients that directions are taken from, where there are as many.
_NUM_FOR_DIRECTIONS = 8192
_DEFAULT_RESOURCES = fit_basis_config.Resources()


def fit_kronecker_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: KroneckerConfig,
  *,
  resources: fit_basis_config.Resources = _DEFAULT_RESOURCES,
  progress: types.ProgressCallback = types.no_progress,
) -> stored_basis.BasisRecord:
  """Fits subspaces on one fixed random sample and stores them at `path`.

  The sample is read block by block, and may be the whole corpus. What is
  interrupted goes on where it was, up to a minute before.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what to fit.
    resources: memory, placement of parameters and rejected examples count.
    progress: called with the number of blocks of the sample that were read in
      all passes, and of all there are.

  Raises:
    errors.InputError: It cannot be stored, too many examples of the sample
      cannot be used, or the task has no split loss.
  """
  started = time.monotonic()
  samples = curvature_sample.CurvatureSamples(
    loaded,
    config.sample_size,
    config.seed,
    max_rejected_fraction=resources.max_rejected_fraction,
    memory_budget_bytes=resources.memory_budget_bytes,
  )
  blocks = samples.blocks()
  passes = _passes(path, loaded, config, blocks, progress)
  roots, layers, fitted = _fit(
    loaded, config, samples.size, blocks, passes, resources
  )
  samples.finish_blocks(blocks)
  eigenvalues, columns = subspace_basis.join_columns(
    layers.stacks, fitted.stacks
  )
  report = subspace_basis.KroneckerReport(
    columns,
    layers.stacks,
    fitted.left_out,
    _curvature(loaded, config),
    roots.num_draws,
    roots.is_exact,
    samples.num_used,
    time.monotonic() - started,
    samples.rejected,
  )
  basis = subspace_basis.SubspaceBasis(
    eigenvalues,
    {path: one.directions for path, one in fitted.stacks.items()},
    report,
  )
  record = task_basis.save(
    path, loaded, config, eigenvalues, basis.arrays(), report
  )
  storage.remove_directory(passes.directory)
  return record


def _curvature(
  loaded: loaded_task.LoadedTask, config: KroneckerConfig
) -> Curvature:
  has_split_loss = loaded.task.split_loss is not None
  return config.curvature_of(has_split_loss=has_split_loss)


def _passes(
  path: str,
  loaded: loaded_task.LoadedTask,
  config: KroneckerConfig,
  blocks: sample_blocks.SampleBlocks,
  progress: types.ProgressCallback,
) -> kept_passes.KeptPasses:
  """Where passes for this basis, and for no other, are kept."""
  made_for = (
    task_basis.full_config(config, loaded),
    loaded.fingerprints,
    blocks.size,
  )
  return kept_passes.KeptPasses(
    storage.join(storage.absolute(path), 'passes'),
    blocks,
    made_for=fingerprints.of_json(made_for),
    num_passes=3 if config.inside == 'hessian' else 2,
    progress=progress,
  )


def _fit(
  loaded: loaded_task.LoadedTask,
  config: KroneckerConfig,
  sample_size: int,
  blocks: sample_blocks.SampleBlocks,
  passes: kept_passes.KeptPasses,
  resources: fit_basis_config.Resources,
) -> tuple[curvature_roots.CurvatureRoots, layers_lib.Layers, kronecker.Fitted]:
  """The passes over the sample."""

  def roots_of(
    curvature: Curvature, num_draws: int | None = config.num_draws
  ) -> curvature_roots.CurvatureRoots:
    return curvature_roots.CurvatureRoots.of(
      loaded, curvature, num_draws=num_draws, seed=config.seed
    )

  def sample_of(roots) -> factored_sample.FactoredSample:
    return dataclasses.replace(
      roots.sample(loaded, blocks, passes),
      memory_budget_bytes=resources.memory_budget_bytes,
      parameter_placement=resources.parameter_placement,
    )

  curvature = _curvature(loaded, config)
  roots = roots_of(curvature)
  sample = sample_of(roots)
  few = -(-_NUM_FOR_DIRECTIONS // sample_size)
  directions_of = losses = None
  if few < roots.num_draws:
    directions_of = sample_of(roots_of(curvature, few))
  if config.inside == 'hessian':
    # The roots of empirical_fisher are the gradients of the loss itself.
    losses = sample_of(roots_of('empirical_fisher'))
  layers = layers_lib.find(
    sample.gradients,
    sample.leaves,
    roots.few(loaded),
    tables=config.tables,
  )
  fitted = kronecker.fit(
    sample,
    layers,
    # The curvature of more coordinates than gradients is not known.
    min(config.coordinates_per_layer, sample_size * roots.num_draws),
    directions_of=directions_of,
    hessian_of=losses,
    kind=config.directions,
    shrinkage=config.shrinkage,
    l2_weight=loaded.task.l2_weight,
    seed=config.seed,
  )
  return roots, layers, fitted
