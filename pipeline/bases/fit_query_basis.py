"""Solves linear systems for single queries and stores them as a basis.

Projected on it, an example's gradient gives its influence on each query. So the
methods that work on the query side are served by every later stage too.
"""

import time

import jax
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.devices import memory as device_memory, plain_gradient
from influence_core.eigenpairs import reports
from pipeline.bases import (
  curvature_sample,
  query_solvers,
  stored_basis,
  task_basis,
)
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.index import choices as index_choices
from pipeline.tasks import example_batches, loaded_task, queries


def fit_query_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: QueryBasisConfig,
  *,
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION,
  progress: types.ProgressCallback = types.no_progress,
) -> stored_basis.BasisRecord:
  """Solves for the queries and stores them at `path`, or finds them there.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what to solve.
    max_rejected_fraction: of the sample; more unusable examples are an error.
    progress: called with what is done of the method's work, and all of it.

  Raises:
    errors.InputError: Something else is at `path`, it cannot be written, or
      the system cannot be solved.
  """
  if record := task_basis.find(path, config, loaded):
    return record
  _check_size(loaded, config)
  started = time.monotonic()
  batch = queries.read(loaded, config.query_split)
  gradients = _gradients(loaded, batch)
  samples = curvature_sample.CurvatureSamples(
    loaded,
    config.sample_size,
    config.seed,
    max_rejected_fraction=max_rejected_fraction,
  )
  solved = query_solvers.solve(loaded, samples, gradients, config, progress)
  report = reports.QueryReport(
    config.method,
    tuple(batch.ids),
    solved.residuals,
    solved.num_products,
    solved.sample_size,
    time.monotonic() - started,
    samples.rejected,
    solved.trace,
  )
  return task_basis.save(
    path,
    loaded,
    config,
    np.ones(len(batch.ids)),
    solved.vectors.items(),
    report,
  )


def _check_size(
  loaded: loaded_task.LoadedTask, config: QueryBasisConfig
) -> None:
  """Refuses more queries than memory has room for."""
  corpus = loaded.task.corpus.with_split(config.query_split)
  corpus.check()
  size = parameter_selection.num_parameters(loaded.selected)
  device_memory.check_host_memory(
    4 * query_solvers.COPIES[config.method] * corpus.num_examples * size,
    f'gradients of {corpus.num_examples:,} queries by {size:,} parameters',
    'take fewer queries at a time or select fewer --parameter_paths',
  )


def _gradients(
  loaded: loaded_task.LoadedTask, batch: example_batches.ExampleBatch
) -> query_solvers.Vectors:
  """[num_queries, *shape] float32 gradients by path."""
  gradient = plain_gradient.compile_gradient(
    loaded.measuring().task.per_example_loss, loaded.params, loaded.selected
  )
  gradients = {
    path: np.empty((len(batch.ids), *leaf.shape), np.float32)
    for path, leaf in loaded.selected.items()
  }
  for number, example_id in enumerate(batch.ids):
    example = jax.tree.map(lambda x, n=number: x[n : n + 1], batch.features)
    row = jax.tree.map(np.asarray, gradient(example))
    if not all(np.isfinite(part).all() for part in row.values()):
      raise errors.InputError(
        f'the gradient of query {example_id} is not finite; leave it out of '
        '--query_split'
      )
    for path, part in row.items():
      gradients[path][number] = part
  return gradients
