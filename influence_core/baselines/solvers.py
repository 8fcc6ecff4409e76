"""(H + damping)^-1 g for a few gradients, without eigenpairs.

The query side of influence as it was first computed: a linear system is solved
for every query. What Arnoldi iteration saves, and is compared with.

References:
  Martens, "Deep learning via Hessian-free optimization", ICML 2010, for
  conjugate gradients.
  Agarwal, Bullins and Hazan, "Second-Order Stochastic Optimization for Machine
  Learning in Linear Time", JMLR 2017, for LiSSA; Koh and Liang, ICML 2017,
  section 3, for its use here.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors
from influence_core.curvature import operator as curvature_operator
from influence_core.eigenpairs import trust

# Products that find the largest eigenvalue well enough to divide by.
_NUM_POWER_STEPS = 20
# The curvature of a few examples may exceed that of all by far.
_SCALE_MARGIN = 4.0
_DIVERGED = 1e6
# Random vectors that tell the trace well enough to damp by its mean: to 4 % on
# digits, where no pairs are known that could be taken out.
_NUM_TRACE_PROBES = 32
# A dense matrix of this many parameters is half a gigabyte in float64.
MAX_DENSE_PARAMETERS = 8192


class Solution(NamedTuple):
  """A solved system.

  Attributes:
    vector: [num_parameters] float32 solution.
    num_products: with the curvature that it took.
    residual: |(H + damping) x - g| / |g|.
  """

  vector: np.ndarray
  num_products: int
  residual: float


def conjugate_gradients(
  operator: curvature_operator.CurvatureOperator,
  gradient: np.ndarray,
  *,
  damping: float,
  max_products: int,
  tolerance: float,
) -> Solution:
  """Solves by conjugate gradients.

  Args:
    operator: the curvature H.
    gradient: [num_parameters] float32.
    damping: added to every eigenvalue.
    max_products: with the curvature.
    tolerance: residual to stop at.

  Raises:
    errors.InputError: H + damping has a direction of negative curvature.
  """
  right = slices_of(operator, gradient)
  solution = jnp.zeros_like(right)
  residual = direction = right
  size = squared = _dot(right, right)
  count = 0
  while count < max_products and squared > tolerance**2 * size:
    product = operator(direction) + damping * direction
    curvature = _dot(direction, product)
    if curvature <= 0:
      raise errors.InputError(
        f'conjugate gradients met negative curvature, '
        f'{curvature / _dot(direction, direction):.3g}, with damping '
        f'{damping:g}; raise --damping, or use --curvature gauss_newton, which '
        'has none'
      )
    step = squared / curvature
    solution = solution + step * direction
    residual = residual - step * product
    before, squared = squared, _dot(residual, residual)
    direction = residual + squared / before * direction
    count += 1
  return _checked(operator, right, solution, damping, count)


def lissa(
  operator: curvature_operator.CurvatureOperator,
  gradient: np.ndarray,
  *,
  damping: float,
  num_products: int,
  scale: float,
  seed: int,
) -> Solution:
  """Solves by a Neumann series whose terms take a random microbatch each.

  Args:
    operator: the curvature H.
    gradient: [num_parameters] float32.
    damping: added to every eigenvalue.
    num_products: terms of the series.
    scale: what the curvature is divided by; above its largest eigenvalue, see
      `series_scale`.
    seed: of the choice of microbatches.

  Raises:
    errors.InputError: The series diverges.
  """
  generator = np.random.default_rng(seed)
  right = slices_of(operator, gradient)
  solution, size = right, _dot(right, right)
  for number in generator.integers(
    operator.num_microbatches, size=num_products
  ):
    product = operator.of_microbatch(solution, int(number))
    solution = right + solution - (product + damping * solution) / scale
    grown = _dot(solution, solution)
    if not grown <= (_DIVERGED * scale / max(damping, 1e-6)) ** 2 * size:
      raise errors.InputError(
        f'LiSSA diverges with scale {scale:.4g}; raise --scale or --damping, '
        'or use --curvature gauss_newton'
      )
  return _checked(operator, right, solution / scale, damping, num_products)


def series_scale(
  operator: curvature_operator.CurvatureOperator, damping: float, seed: int
) -> float:
  """A scale that `lissa` should converge with, by power iteration."""
  vector = operator.random_vector([seed])
  largest = 0.0
  for _ in range(_NUM_POWER_STEPS):
    vector = operator(vector)
    largest = _dot(vector, vector) ** 0.5
    vector = vector / max(largest, np.finfo(np.float32).tiny)
  return _SCALE_MARGIN * (largest + damping)


def estimate_trace(
  operator: curvature_operator.CurvatureOperator, seed: int
) -> trust.TraceEstimate:
  """The trace of the curvature, by random signs of a seed."""
  return trust.estimate_trace(
    operator,
    (
      operator.random_vector([seed, 1, number], signs=True)
      for number in range(_NUM_TRACE_PROBES)
    ),
    inner_product=_dot,
    num_parameters=operator.num_parameters,
  )


def trace(matrix: np.ndarray) -> trust.TraceEstimate:
  """The trace of an explicit matrix, which is no estimate."""
  return trust.TraceEstimate(float(np.trace(matrix)), 0.0, 0.0, 0, len(matrix))


def dense_matrix(
  operator: curvature_operator.CurvatureOperator,
  progress: Callable[[int, int], None],
) -> np.ndarray:
  """[num_parameters, num_parameters] float64, symmetric.

  Args:
    operator: the curvature.
    progress: called with columns done and in all.

  Raises:
    errors.InputError: There are too many parameters.
  """
  count = operator.num_parameters
  if count > MAX_DENSE_PARAMETERS:
    raise errors.InputError(
      f'{count:,} parameters are selected, expected at most '
      f'{MAX_DENSE_PARAMETERS:,} for an explicit matrix; select fewer or use '
      "method 'cg'"
    )
  matrix, unit = np.empty((count, count)), np.zeros(count, np.float32)
  for number in range(count):
    unit[number] = 1
    matrix[number] = flat(operator, operator(slices_of(operator, unit)))
    unit[number] = 0
    progress(number + 1, count)
  return (matrix + matrix.T) / 2


def slices_of(
  operator: curvature_operator.CurvatureOperator, vector: np.ndarray
) -> jax.Array:
  """Slices of a [num_parameters] vector."""
  return operator.slices(lambda start, stop: vector[start:stop])


def flat(
  operator: curvature_operator.CurvatureOperator, slices: jax.Array
) -> np.ndarray:
  """[num_parameters] float32 from slices of one process."""
  return np.asarray(slices).reshape(-1)[: operator.num_parameters]


def _checked(operator, right, solution, damping, count) -> Solution:
  left = operator(solution) + damping * solution - right
  size = _dot(right, right)
  residual = (_dot(left, left) / size) ** 0.5 if size else 0.0
  return Solution(flat(operator, solution), count + 1, residual)


def _dot(one: jax.Array, other: jax.Array) -> float:
  return float(jnp.sum(one * other))
