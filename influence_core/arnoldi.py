"""Arnoldi iteration on a symmetric operator, and its Ritz pairs.

Builds an orthonormal basis Q of the Krylov space of H and the Hessenberg
matrix T = Q^T H Q, whose eigenpairs approximate the leading ones of H.

References:
  Schioppa et al., "Scaling Up Influence Functions", AAAI 2022, section 3.
  Golub and Van Loan, "Matrix Computations", 4th ed., section 10.5.
"""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types

# A float32 product carries an error of about 1e-6 of |Hq|: a new direction less
# than ten times as long is mostly noise.
BREAKDOWN_TOLERANCE = 1e-5

# Columns converted to float64 at a time when orthogonality is measured.
_GRAM_BLOCK_COLUMNS = 1 << 16


@dataclasses.dataclass(frozen=True)
class ArnoldiFactorization:
  """H Q[:m]^T = Q^T hessenberg, for m steps.

  Attributes:
    krylov_vectors: [m + 1, num_parameters] float32, orthonormal rows; the last
      row is zero after a breakdown.
    hessenberg: [m + 1, m] float64.
    broke_down: the Krylov space became invariant before the steps asked for
      were done: its Ritz pairs are then exact eigenpairs of H.
  """

  krylov_vectors: jax.Array
  hessenberg: np.ndarray
  broke_down: bool

  @property
  def num_steps(self) -> int:
    return self.hessenberg.shape[1]


@dataclasses.dataclass(frozen=True)
class RitzPairs:
  """Approximate eigenpairs from a factorization, largest eigenvalue first.

  Attributes:
    eigenvalues: [m] float64.
    coefficients: [m, m] float64; row i combines the first m Krylov vectors to
      the eigenvector of eigenvalue i.
    residual_norms: [m] float64, |Hv - lambda v| of each pair.
  """

  eigenvalues: np.ndarray
  coefficients: np.ndarray
  residual_norms: np.ndarray


def arnoldi_iteration(
  operator: Callable[[jax.Array], jax.Array],
  initial_vector: types.Array,
  *,
  num_iterations: int,
  breakdown_tolerance: float = BREAKDOWN_TOLERANCE,
  progress: types.ProgressCallback = types.no_progress,
) -> ArnoldiFactorization:
  """Runs Arnoldi iteration, one operator product a step.

  Each new vector is orthogonalised twice against all before it (classical
  Gram-Schmidt, CGS2): in float32 a single pass lets the basis collapse and
  invents eigenvalues.

  Args:
    operator: symmetric linear map on [num_parameters] float32.
    initial_vector: [num_parameters], not zero.
    num_iterations: steps wanted; never more than num_parameters are done.
    breakdown_tolerance: the iteration stops when what is left of H q after
      orthogonalisation is shorter than this fraction of the largest |H q|
      seen, since the direction would be rounding noise.
    progress: called after each step.

  Returns:
    A factorization of num_iterations steps, or of fewer after a breakdown.

  Raises:
    errors.InputError: num_iterations < 1, a zero initial vector, or a product
      that is not finite.
  """
  if num_iterations < 1:
    raise errors.InputError(
      f'num_iterations is {num_iterations}, expected at least 1'
    )
  initial_vector = jnp.asarray(initial_vector, jnp.float32)
  norm = float(jnp.linalg.norm(initial_vector))
  if not (np.isfinite(norm) and norm > 0):
    raise errors.InputError(
      f'the initial vector has norm {norm}, expected a positive finite one'
    )
  size = initial_vector.size
  num_iterations = min(num_iterations, size)
  vectors = jnp.zeros((num_iterations + 1, size), jnp.float32)
  vectors = _write_row(vectors, 0, initial_vector / norm)
  hessenberg = np.zeros((num_iterations + 1, num_iterations))
  scale = 0.0
  for step in range(num_iterations):
    product = operator(vectors[step])
    residual, overlaps, product_norm, length = _orthogonalise(vectors, product)
    if not np.isfinite(product_norm):
      raise errors.InputError(
        f'the operator product of step {step} is not finite; check that the '
        'loss is twice differentiable at every example of the sample'
      )
    scale = max(scale, float(product_norm))
    hessenberg[: step + 1, step] = np.asarray(overlaps)[: step + 1]
    progress(step + 1, num_iterations)
    if length <= breakdown_tolerance * scale or step + 1 == size:
      return ArnoldiFactorization(
        vectors[: step + 2], hessenberg[: step + 2, : step + 1], True
      )
    hessenberg[step + 1, step] = length
    vectors = _write_row(vectors, step + 1, residual / length)
  return ArnoldiFactorization(vectors, hessenberg, False)


@functools.partial(jax.jit, donate_argnums=0)
def _write_row(vectors: jax.Array, row, vector: jax.Array) -> jax.Array:
  """`vectors` with one row replaced, in place thanks to the donation."""
  return vectors.at[row].set(vector)


@jax.jit
def _orthogonalise(vectors, product):
  """Two classical Gram-Schmidt passes; rows not yet written are zero."""
  product_norm = jnp.linalg.norm(product)
  first = _overlaps(vectors, product)
  product = product - _combine(first, vectors)
  second = _overlaps(vectors, product)
  product = product - _combine(second, vectors)
  return product, first + second, product_norm, jnp.linalg.norm(product)


@jax.jit
def _overlaps(vectors, vector):
  """Inner product of each row with `vector`.

  As a reduction, not a matrix product: matrix-vector kernels on CPU add up a
  row one entry after the other, so that a long tail of small entries is lost
  against a large head, and orthogonality with it (5e-5 instead of 2e-7).
  """
  return jnp.sum(vectors * vector, axis=1)


def _combine(coefficients, vectors):
  return jnp.matmul(coefficients, vectors, precision=jax.lax.Precision.HIGHEST)


def ritz_pairs(factorization: ArnoldiFactorization) -> RitzPairs:
  """Ritz pairs of the symmetrised Hessenberg matrix, in float64.

  The residual is |hessenberg y - lambda [y; 0]|, which equals |Hv - lambda v|
  as far as the Krylov vectors are orthonormal, at no further product.
  """
  steps = factorization.num_steps
  hessenberg = factorization.hessenberg
  square = hessenberg[:steps]
  eigenvalues, eigenvectors = np.linalg.eigh((square + square.T) / 2)
  order = np.argsort(-eigenvalues, kind='stable')
  eigenvalues, eigenvectors = eigenvalues[order], eigenvectors[:, order]
  residuals = hessenberg @ eigenvectors
  residuals[:steps] -= eigenvectors * eigenvalues
  return RitzPairs(
    eigenvalues, eigenvectors.T, np.linalg.norm(residuals, axis=0)
  )


def orthogonality_error(factorization: ArnoldiFactorization) -> float:
  """max |Q Q^T - I| over the first m Krylov vectors, summed in float64."""
  steps, size = factorization.num_steps, factorization.krylov_vectors.shape[1]
  gram = np.zeros((steps, steps))
  for start in range(0, size, _GRAM_BLOCK_COLUMNS):
    stop = min(start + _GRAM_BLOCK_COLUMNS, size)
    block = np.asarray(
      factorization.krylov_vectors[:steps, start:stop], np.float64
    )
    gram += block @ block.T
  return float(np.abs(gram - np.eye(steps)).max())
