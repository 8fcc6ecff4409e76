"""Solves linear systems for single queries and stores them as a basis.

Projected on it, an example's gradient gives its influence on each query. So the
methods that work on the query side are served by every later stage too.
"""

import dataclasses
import functools
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import (
  curvature_operator,
  curvature_products,
  ekfac,
  errors,
  inverse_products,
  kronecker_factors,
  krylov_vectors,
  parameter_selection,
  pseudo_gradients,
  query_basis,
  types,
)
from pipeline import (
  curvature_sample,
  fit_basis_config,
  loaded_task,
  queries,
  stored_basis,
  task_basis,
)

Vectors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class QueryBasisConfig:
  """What basis is made.

  Attributes:
    query_split: TFDS split of the queries, e.g. 'test[:50]'.
    method: see `query_basis.QueryReport`.
    curvature: see `curvature_operator.CurvatureOptions`.
    damping: added to every eigenvalue; None for zero, and for 'ekfac' for a
      tenth of the mean eigenvalue of each parameter.
    num_products: most products for a query, of 'cg' and 'lissa'.
    tolerance: residual at which 'cg' stops.
    scale: what 'lissa' divides the curvature by; None to find it.
    microbatch_size: examples of a product of 'lissa'.
    sample_size: examples the curvature is averaged over, drawn at random.
    basis_dtype: that vectors are stored in.
    seed: of the sample and all other choices.
  """

  query_split: str
  method: query_basis.Method = 'cg'
  curvature: curvature_products.Curvature = 'gauss_newton'
  damping: float | None = None
  num_products: int = 100
  tolerance: float = 1e-3
  scale: float | None = None
  microbatch_size: int = 64
  sample_size: int = 4096
  basis_dtype: fit_basis_config.VectorDtype = 'float32'
  seed: int = 0

  def __post_init__(self):
    for name in ('num_products', 'microbatch_size', 'sample_size'):
      if getattr(self, name) < 1:
        raise errors.InputError(
          f'{name} is {getattr(self, name)}, expected at least 1'
        )
    if self.damping is not None and not 0 <= self.damping < np.inf:
      raise errors.InputError(
        f'damping is {self.damping}, expected a finite number >= 0'
      )
    if self.scale is not None and not 0 < self.scale < np.inf:
      raise errors.InputError(
        f'scale is {self.scale}, expected a finite number > 0'
      )
    if self.method == 'ekfac' and self.curvature == 'hessian':
      raise errors.InputError(
        "method 'ekfac' has no hessian; choose --curvature gauss_newton or "
        'empirical_fisher'
      )


class _Solved(NamedTuple):
  vectors: Vectors
  residuals: tuple[float, ...] = ()
  num_products: int = 0
  sample_size: int = 0


def fit_query_basis(
  loaded: loaded_task.LoadedTask,
  path: str,
  config: QueryBasisConfig,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> stored_basis.BasisRecord:
  """Solves for the queries and stores them at `path`, or finds them there.

  Args:
    loaded: the task.
    path: where the basis is stored.
    config: what to solve.
    progress: called with what is done of the method's work, and all of it.

  Raises:
    errors.InputError: Something else is at `path`, it cannot be written, or
      the system cannot be solved.
  """
  if record := task_basis.find(path, config, loaded):
    return record
  started = time.monotonic()
  batch = queries.read(loaded, config.query_split)
  gradients = _gradients(loaded, batch)
  solve = {
    'gradient': _keep,
    'cg': _solve_each,
    'lissa': _solve_each,
    'exact': _solve_exactly,
    'ekfac': _solve_by_factors,
  }[config.method]
  solved = solve(loaded, gradients, config, progress)
  report = query_basis.QueryReport(
    config.method,
    tuple(batch.ids),
    solved.residuals,
    solved.num_products,
    solved.sample_size,
    time.monotonic() - started,
  )
  return stored_basis.save(
    path,
    np.ones(len(batch.ids)),
    solved.vectors.items(),
    report,
    dtype=krylov_vectors.DTYPES[config.basis_dtype],
    config=task_basis.full_config(config, loaded),
    task_fingerprints=loaded.fingerprints,
    probe=loaded.first_examples(),
  )


def _gradients(
  loaded: loaded_task.LoadedTask, batch: loaded_task.ExampleBatch
) -> Vectors:
  """[num_queries, *shape] float32 gradients by path."""

  @jax.jit
  def gradient(selected, example):
    def loss(selected):
      replaced = parameter_selection.replace_parameters(loaded.params, selected)
      one = jax.tree.map(lambda leaf: leaf[None], example)
      return loaded.task.per_example_loss(replaced, one)[0].astype(jnp.float32)

    return jax.grad(loss)(selected)

  rows = []
  for number, example_id in enumerate(batch.ids):
    example = jax.tree.map(lambda leaf, n=number: leaf[n], batch.features)
    row = jax.tree.map(np.asarray, gradient(loaded.selected, example))
    if not all(np.isfinite(part).all() for part in row.values()):
      raise errors.InputError(
        f'the gradient of query {example_id} is not finite; leave it out of '
        '--query_split'
      )
    rows.append(row)
  return {
    path: np.stack([row[path] for row in rows]).astype(np.float32)
    for path in loaded.selected
  }


def _keep(loaded, gradients, config, progress) -> _Solved:
  del loaded, config, progress
  return _Solved(gradients)


def _solve_each(loaded, gradients, config, progress) -> _Solved:
  """By conjugate gradients or LiSSA, one query after the other."""
  operator, sample_size = _operator(loaded, config)
  damping = config.damping or 0.0
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
  return _Solved(
    _by_path(np.stack([solution.vector for solution in solutions]), gradients),
    tuple(solution.residual for solution in solutions),
    sum(solution.num_products for solution in solutions),
    sample_size,
  )


def _solve_exactly(loaded, gradients, config, progress) -> _Solved:
  """With the explicit matrix, in float64."""
  operator, sample_size = _operator(loaded, config)
  matrix = inverse_products.dense_matrix(operator, progress)
  matrix += (config.damping or 0.0) * np.eye(len(matrix))
  rows = _flat(gradients).astype(np.float64)
  try:
    found = np.linalg.solve(matrix, rows.T).T
  except np.linalg.LinAlgError as error:
    raise errors.InputError(
      'the curvature is singular; give a --damping'
    ) from error
  left = np.linalg.norm(found @ matrix - rows, axis=1)
  sizes = np.linalg.norm(rows, axis=1)
  return _Solved(
    _by_path(found.astype(np.float32), gradients),
    tuple((left / np.where(sizes > 0, sizes, 1)).tolist()),
    len(matrix),
    sample_size,
  )


def _solve_by_factors(loaded, gradients, config, progress) -> _Solved:
  """By EK-FAC."""
  del progress  # Two passes over a sample.
  features = _sample(loaded, config)
  sample_size = curvature_sample.num_used(features)
  loss = loaded.task.per_example_loss
  if config.curvature == 'gauss_newton':
    split_loss = curvature_products.needed(loaded.task.split_loss)
    loss = pseudo_gradients.loss(split_loss)
    features = pseudo_gradients.with_noise(
      split_loss, loaded.params, features, config.seed
    )
  factored = kronecker_factors.FactoredGradients(
    loss, loaded.params, selected=loaded.selected, features=features
  )
  leaves = parameter_selection.all_parameters(loaded.params)
  blocks = ekfac.fit(factored, leaves, features)
  solved = ekfac.solve(
    blocks,
    factored.matrices,
    gradients,
    damping=config.damping,
    l2_weight=loaded.task.l2_weight,
  )
  return _Solved(jax.tree.map(np.asarray, solved), sample_size=sample_size)


def _operator(
  loaded: loaded_task.LoadedTask, config: QueryBasisConfig
) -> tuple[curvature_operator.CurvatureOperator, int]:
  """The curvature, and the number of examples that it is the mean of."""
  features = _sample(loaded, config)
  operator = curvature_operator.CurvatureOperator(
    loaded.task.per_example_loss,
    loaded.params,
    sample=features,
    parameter_paths=loaded.task.parameter_paths,
    split_loss=loaded.task.split_loss,
    options=curvature_operator.CurvatureOptions(
      config.curvature,
      loaded.task.l2_weight,
      config.microbatch_size if config.method == 'lissa' else None,
    ),
  )
  return operator, curvature_sample.num_used(features)


def _sample(
  loaded: loaded_task.LoadedTask, config: QueryBasisConfig
) -> types.Features:
  """Random examples in random order, so that microbatches are random too."""
  sample = curvature_sample.CurvatureSamples(
    loaded, config.sample_size, config.seed
  ).first()
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
