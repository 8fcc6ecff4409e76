import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import arnoldi, errors


def symmetric_matrix(eigenvalues, seed=0):
  generator = np.random.default_rng(seed)
  size = len(eigenvalues)
  vectors, _ = np.linalg.qr(generator.normal(size=(size, size)))
  return (vectors * eigenvalues) @ vectors.T


def iterate(matrix, num_iterations, initial=None):
  matrix = jnp.asarray(matrix, jnp.float32)
  if initial is None:
    initial = np.random.default_rng(1).normal(size=len(matrix))
  return arnoldi.arnoldi_iteration(
    lambda v: matrix @ v, initial, num_iterations=num_iterations
  )


def test_leading_pairs_equal_eigh():
  eigenvalues = np.concatenate([[50, 30, 20, -15, 10], np.linspace(1, 0, 195)])
  matrix = symmetric_matrix(eigenvalues)
  factorization = iterate(matrix, 60)
  pairs = arnoldi.ritz_pairs(factorization)
  expected = np.sort(np.linalg.eigvalsh(matrix))[::-1]
  # float32 products of norm 50 carry an error of about 50 * 1e-7 * sqrt(200).
  np.testing.assert_allclose(pairs.eigenvalues[:4], expected[:4], atol=1e-4)
  np.testing.assert_allclose(pairs.eigenvalues[-1], -15, atol=1e-4)
  assert arnoldi.orthogonality_error(factorization) < 1e-5
  vectors = pairs.coefficients @ np.asarray(factorization.krylov_vectors[:60])
  true = matrix @ vectors.T - vectors.T * pairs.eigenvalues
  np.testing.assert_allclose(
    np.linalg.norm(true, axis=0), pairs.residual_norms, atol=2e-4
  )


def test_full_number_of_steps_gives_the_whole_spectrum():
  matrix = symmetric_matrix(np.linspace(-3, 8, 12))
  factorization = iterate(matrix, 40)  # More than there are dimensions.
  assert factorization.num_steps == 12
  np.testing.assert_allclose(
    arnoldi.ritz_pairs(factorization).eigenvalues,
    np.linspace(8, -3, 12),
    atol=1e-5,
  )


def test_rank_deficient_operator_breaks_down_consistently():
  matrix = symmetric_matrix(np.array([5, 3, 2] + [0] * 97))
  factorization = iterate(matrix, 30)
  assert factorization.broke_down
  # Three directions of the range and the rest of the initial vector.
  assert factorization.num_steps == 4
  pairs = arnoldi.ritz_pairs(factorization)
  np.testing.assert_allclose(pairs.eigenvalues, [5, 3, 2, 0], atol=1e-5)
  assert pairs.residual_norms.max() < 1e-4


def test_eigenvector_as_start_breaks_down_at_once():
  factorization = iterate(np.diag([4.0, 2.0, 1.0]), 3, [1.0, 0, 0])
  assert factorization.num_steps == 1
  assert arnoldi.ritz_pairs(factorization).eigenvalues.tolist() == [4.0]


def test_small_scale_operator_does_not_break_down_early():
  matrix = 1e-12 * symmetric_matrix(np.linspace(1, 5, 20))
  factorization = iterate(matrix, 10)
  assert factorization.num_steps == 10


def test_vectors_with_heavy_head_stay_orthogonal():
  # A few large entries before a long flat tail: sequential float32 dot products
  # lose the tail, and orthogonality is 1e-5 and above. Vectorised ones add in
  # as many parts as the processor has lanes: 0.3e-6 to 2.1e-6 was seen.
  size = 300_000
  diagonal = np.zeros(size, np.float32)
  diagonal[:200] = np.logspace(2, -2, 200)
  initial = np.random.default_rng(0).normal(size=size)
  factorization = arnoldi.arnoldi_iteration(
    lambda v: v * diagonal, initial, num_iterations=20
  )
  assert arnoldi.orthogonality_error(factorization) < 5e-6


@pytest.mark.parametrize(
  ('iterations', 'initial', 'scale', 'message'),
  [
    (0, [1.0, 1.0], 1, 'num_iterations is 0'),
    (2, [0.0, 0.0], 1, 'norm 0.0'),
    (2, [1.0, 1.0], np.nan, 'product of step 0 is not finite'),
  ],
)
def test_bad_input(iterations, initial, scale, message):
  with pytest.raises(errors.InputError, match=message):
    iterate(scale * np.eye(2), iterations, initial)
