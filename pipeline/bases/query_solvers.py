"""Linear systems of single queries, solved by one of several methods."""

from collections.abc import Callable
import functools
from typing import NamedTuple

import jax
import numpy as np

from influence_core import errors, types
from influence_core.baselines import ekfac, solvers as inverse_products
from influence_core.curvature import operator as curvature_operator
from influence_core.eigenpairs import trust
from pipeline.bases import curvature_roots, curvature_sample
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.tasks import loaded_task

# [count, *shape] float32 by parameter path.
Vectors = dict[str, np.ndarray]

# Vectors of float32 for each query that a method has at a time, its gradient
# among them.
COPIES = {'gradient': 1, 'cg': 4, 'lissa': 4, 'exact': 7, 'ekfac': 4}


class Solved(NamedTuple):
  """What a method found.

  Attributes:
    vectors: [num_queries, *shape] float32 by path.
    residuals: see `reports.QueryReport`.
    num_products: see there.
    sample_size: see there.
    trace: see there.
  """

  vectors: Vectors
  residuals: tuple[float, ...] = ()
  num_products: int = 0
  sample_size: int = 0
  trace: trust.TraceEstimate | None = None


def solve(
  loaded: loaded_task.LoadedTask,
  samples: curvature_sample.CurvatureSamples,
  gradients: Vectors,
  config: QueryBasisConfig,
  progress: types.ProgressCallback,
) -> Solved:
  """Solves for the gradients of queries.

  Args:
    loaded: the task.
    samples: examples that the curvature is taken over.
    gradients: [num_queries, *shape] float32 by path.
    config: by which method, and how.
    progress: called with what is done of the method's work, and all of it.

  Raises:
    errors.InputError: The system cannot be solved.
  """
  methods = {
    'gradient': _keep,
    'cg': _solve_each,
    'lissa': _solve_each,
    'exact': _solve_exactly,
    'ekfac': _solve_by_factors,
  }
  return methods[config.method](loaded, samples, gradients, config, progress)


def _keep(loaded, samples, gradients, config, progress) -> Solved:
  del loaded, samples, config, progress
  return Solved(gradients)


def _solve_each(loaded, samples, gradients, config, progress) -> Solved:
  """By conjugate gradients or LiSSA, one query after the other."""
  operator, sample_size = _operator(loaded, samples, config)
  damping, trace = _damping(
    config, lambda: inverse_products.estimate_trace(operator, config.seed)
  )
  if config.method == 'cg':
    solve = functools.partial(
      inverse_products.conjugate_gradients,
      max_products=config.num_products,
      tolerance=config.tolerance,
    )
  else:
    solve = functools.partial(
      inverse_products.lissa,
      num_products=config.num_products,
      scale=config.scale
      or inverse_products.series_scale(operator, damping, config.seed),
      seed=config.seed,
    )
  rows = _flat(gradients)
  solutions = []
  for number, row in enumerate(rows):
    solutions.append(solve(operator, row, damping=damping))
    progress(number + 1, len(rows))
  return Solved(
    _by_path(np.stack([solution.vector for solution in solutions]), gradients),
    tuple(solution.residual for solution in solutions),
    sum(solution.num_products for solution in solutions)
    + (trace.num_probes if trace else 0),
    sample_size,
    trace,
  )


def _solve_exactly(loaded, samples, gradients, config, progress) -> Solved:
  """With the explicit matrix, in float64."""
  operator, sample_size = _operator(loaded, samples, config)
  matrix = inverse_products.dense_matrix(operator, progress)
  damping, trace = _damping(config, lambda: inverse_products.trace(matrix))
  matrix += damping * np.eye(len(matrix))
  rows = _flat(gradients).astype(np.float64)
  try:
    found = np.linalg.solve(matrix, rows.T).T
  except np.linalg.LinAlgError as error:
    raise errors.InputError(
      'the curvature is singular; give a --damping'
    ) from error
  left = np.linalg.norm(found @ matrix - rows, axis=1)
  sizes = np.linalg.norm(rows, axis=1)
  return Solved(
    _by_path(found.astype(np.float32), gradients),
    tuple((left / np.where(sizes > 0, sizes, 1)).tolist()),
    len(matrix),
    sample_size,
    trace,
  )


def _solve_by_factors(loaded, samples, gradients, config, progress) -> Solved:
  """By EK-FAC."""
  del progress  # Two passes over a sample.
  features = _sample(samples, config)
  sample_size = curvature_sample.num_used(features)
  roots = curvature_roots.CurvatureRoots.of(
    loaded, config.curvature, num_draws=config.num_draws, seed=config.seed
  )
  sample = roots.sample(loaded, [[features]])
  blocks = ekfac.fit(sample)
  solved = ekfac.solve(
    blocks,
    sample.gradients.matrices,
    gradients,
    damping=config.used_damping,
    l2_weight=loaded.task.l2_weight,
  )
  return Solved(jax.tree.map(np.asarray, solved), sample_size=sample_size)


def _damping(
  config: QueryBasisConfig, measure: Callable[[], trust.TraceEstimate]
) -> tuple[float, trust.TraceEstimate | None]:
  """What is added to every eigenvalue, and the trace if it depends on that."""
  damping = config.used_damping
  if not damping.is_relative:
    return damping.value, None
  trace = measure()
  return damping.of_model(trace.mean_curvature), trace


def _operator(
  loaded: loaded_task.LoadedTask,
  samples: curvature_sample.CurvatureSamples,
  config: QueryBasisConfig,
) -> tuple[curvature_operator.CurvatureOperator, int]:
  """The curvature, and the number of examples that it is the mean of."""
  features = _sample(samples, config)
  operator = curvature_sample.make_operator(
    loaded,
    features,
    curvature_operator.CurvatureOptions(
      config.curvature,
      microbatch_size=(
        config.microbatch_size if config.method == 'lissa' else None
      ),
    ),
  )
  return operator, curvature_sample.num_used(features)


def _sample(
  samples: curvature_sample.CurvatureSamples, config: QueryBasisConfig
) -> types.Features:
  """Random examples in random order, so that microbatches are random too."""
  sample = samples.first()
  count = len(jax.tree.leaves(sample)[0])
  order = np.random.default_rng(config.seed).permutation(count)
  return jax.tree.map(lambda leaf: leaf[order], sample)


def _flat(vectors: Vectors) -> np.ndarray:
  """[count, num_parameters], parameters in the order of their paths."""
  return np.concatenate(
    [vectors[path].reshape(len(vectors[path]), -1) for path in sorted(vectors)],
    axis=1,
  )


def _by_path(rows: np.ndarray, like: Vectors) -> Vectors:
  """The inverse of `_flat`."""
  found, start = {}, 0
  for path in sorted(like):
    stop = start + like[path][0].size
    found[path] = rows[:, start:stop].reshape(like[path].shape)
    start = stop
  return found
