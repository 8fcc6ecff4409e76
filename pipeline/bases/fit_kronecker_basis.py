"""Fits the subspaces of all layers and stores them."""

from collections.abc import Callable
import dataclasses
import time

import jax

from influence_core import parameter_selection, types
from influence_core.curvature import products as curvature_products
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  kronecker,
  layers as layers_lib,
  output_roots,
  subspace_basis,
)
from pipeline.bases import curvature_sample, stored_basis, task_basis
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.index import choices as index_choices
from pipeline.tasks import loaded_task

# Examples that tell which bias belongs to which parameter.
_NUM_TRIED = 4


@dataclasses.dataclass(frozen=True)
class _Roots:
  """A loss whose gradients have the curvature as second moment.

  Attributes:
    loss: the loss.
    draw: see `FactoredSample`.
    num_draws: gradients of an example.
    is_exact: whether they make up its curvature without chance.
  """

  loss: types.PerExampleLoss
  draw: Callable[[types.Features, int], types.Features]
  num_draws: int
  is_exact: bool


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
  roots = _roots(loaded, config)
  examples = samples.first()
  few = roots.draw(jax.tree.map(lambda leaf: leaf[:_NUM_TRIED], examples), 0)
  gradients = factored_gradients.FactoredGradients(
    roots.loss,
    loaded.params,
    selected=loaded.selected,
    features=few,
    one_hot=False,
  )
  leaves = parameter_selection.all_parameters(loaded.params)
  _, factors = jax.jit(jax.vmap(gradients.factors, in_axes=(None, 0)))(
    leaves, few
  )
  layers = layers_lib.find(gradients, factors)
  fitted = kronecker.fit(
    factored_sample.FactoredSample(gradients, leaves, examples, roots.draw),
    layers.stacks,
    config.coordinates_per_layer,
    l2_weight=loaded.task.l2_weight,
    seed=config.seed,
  )
  eigenvalues, columns = subspace_basis.join_columns(layers.stacks, fitted)
  report = subspace_basis.KroneckerReport(
    columns,
    layers.stacks,
    layers.left_out,
    config.curvature,
    roots.num_draws,
    roots.is_exact,
    curvature_sample.num_used(examples),
    time.monotonic() - started,
    samples.rejected,
  )
  basis = subspace_basis.SubspaceBasis(
    eigenvalues,
    {path: one.directions for path, one in fitted.items()},
    report,
  )
  return task_basis.save(
    path, loaded, config, eigenvalues, basis.arrays(), report
  )


def _roots(loaded: loaded_task.LoadedTask, config: KroneckerConfig) -> _Roots:
  if config.curvature == 'empirical_fisher':
    return _Roots(
      loaded.task.per_example_loss, lambda examples, start: examples, 1, True
    )
  loaded.check_split_loss()
  roots = output_roots.OutputRoots.of(
    curvature_products.require_split_loss(loaded.task.split_loss),
    loaded.params,
    loaded.checked_features,
    config.num_draws,
  )
  seed = config.seed, jax.process_index()
  return _Roots(
    roots.pseudo_loss,
    lambda examples, start: roots.with_draws(examples, (*seed, start)),
    roots.num_draws,
    roots.is_exact,
  )
