import functools

import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors
from influence_core.devices import multi_device
from influence_core.eigenpairs import (
  arnoldi,
  device_vectors,
  host_vectors,
  krylov_vectors,
  ritz,
)

STORES = ('memory', 'device')
DTYPES = krylov_vectors.DTYPES


def symmetric_matrix(eigenvalues, seed=0):
  generator = np.random.default_rng(seed)
  size = len(eigenvalues)
  vectors, _ = np.linalg.qr(generator.normal(size=(size, size)))
  return (vectors * eigenvalues) @ vectors.T


def make_vectors(store, capacity, size, dtype='float32'):
  if store == 'memory':
    rows = host_vectors.MemoryRows(capacity, size, DTYPES[dtype])
    rows.block_columns = 64  # Several blocks, the last of them shorter.
    return host_vectors.HostVectors(rows)
  return device_vectors.DeviceVectors(
    capacity, size, DTYPES[dtype], block_columns=64
  )


def as_slices(vector):
  return multi_device.place(np.asarray(vector, np.float32)[None])


def is_done(num_iterations):
  return lambda state: state.num_products >= num_iterations


def iterate(
  matrix, num_iterations, *, store='memory', dtype='float32', initial=None,
  **options,
):  # fmt: skip
  size = len(matrix)
  if initial is None:
    initial = np.random.default_rng(1).normal(size=size)
  matrix = jnp.asarray(matrix, jnp.float32)
  vectors = make_vectors(store, num_iterations + 1, size, dtype)
  state = arnoldi.start(vectors, as_slices(initial))
  state = arnoldi.iterate(
    lambda v: (matrix @ v[0])[None],
    vectors,
    state,
    num_parameters=size,
    is_done=is_done(num_iterations),
    **options,
  )
  return vectors, state


def dense(vectors):
  return vectors.combine(np.eye(len(vectors)), 0, vectors.num_columns)


@pytest.mark.parametrize('store', STORES)
def test_leading_pairs_equal_eigh(store):
  eigenvalues = np.concatenate([[50, 30, 20, -15, 10], np.linspace(1, 0, 195)])
  matrix = symmetric_matrix(eigenvalues)
  vectors, state = iterate(matrix, 60, store=store)
  pairs = ritz.ritz_pairs(state)
  expected = np.sort(np.linalg.eigvalsh(matrix))[::-1]
  # float32 products of norm 50 carry an error of about 50 * 1e-7 * sqrt(200).
  np.testing.assert_allclose(pairs.eigenvalues[:4], expected[:4], atol=1e-4)
  np.testing.assert_allclose(pairs.eigenvalues[-1], -15, atol=1e-4)
  assert krylov_vectors.orthogonality_error(vectors) < 1e-5
  found = vectors.combine(pairs.coefficients, 0, 200)
  true = matrix @ found.T - found.T * pairs.eigenvalues
  np.testing.assert_allclose(
    np.linalg.norm(true, axis=0), pairs.residual_norms, atol=2e-4
  )


@pytest.mark.parametrize('store', STORES)
def test_bfloat16_vectors_state_the_residuals_that_rounding_leaves(store):
  eigenvalues = np.concatenate([[50, 30, 20, 10], np.linspace(1, 0, 396)])
  matrix = symmetric_matrix(eigenvalues)
  vectors, state = iterate(matrix, 40, store=store, dtype='bfloat16')
  pairs = ritz.leading_pairs(ritz.ritz_pairs(state), 4, keep_negative=False)
  # Eigenvalues are wrong by the square of the rounding of vectors, 4e-3.
  np.testing.assert_allclose(pairs.eigenvalues, [50, 30, 20, 10], rtol=1e-3)
  found = vectors.combine(pairs.coefficients, 0, 400)
  true = np.linalg.norm(matrix @ found.T - found.T * pairs.eigenvalues, axis=0)
  # A stated residual is no bound to the digit, but of the right size.
  assert (true < 2 * pairs.residual_norms).all()
  assert (pairs.residual_norms < 10 * true).all()
  assert max(pairs.relative_residuals) < 2e-2


def test_full_number_of_steps_gives_the_whole_spectrum():
  matrix = symmetric_matrix(np.linspace(-3, 8, 12))
  _, state = iterate(matrix, 40)  # More than there are dimensions.
  assert state.num_steps == 12
  np.testing.assert_allclose(
    ritz.ritz_pairs(state).eigenvalues, np.linspace(8, -3, 12), atol=1e-5
  )


@pytest.mark.parametrize('store', STORES)
def test_rank_deficient_operator_breaks_down_consistently(store):
  matrix = symmetric_matrix(np.array([5, 3, 2] + [0] * 97))
  vectors, state = iterate(matrix, 30, store=store)
  assert state.broke_down
  # Three directions of the range and the rest of the initial vector.
  assert state.num_steps == state.num_vectors == len(vectors) == 4
  pairs = ritz.ritz_pairs(state)
  np.testing.assert_allclose(pairs.eigenvalues, [5, 3, 2, 0], atol=1e-5)
  assert pairs.residual_norms.max() < 1e-4


def test_eigenvector_as_start_breaks_down_at_once():
  _, state = iterate(np.diag([4.0, 2.0, 1.0]), 3, initial=[1.0, 0, 0])
  assert state.num_steps == 1
  assert ritz.ritz_pairs(state).eigenvalues.tolist() == [4.0]


def test_small_scale_operator_does_not_break_down_early():
  matrix = 1e-12 * symmetric_matrix(np.linspace(1, 5, 20))
  assert iterate(matrix, 10)[1].num_steps == 10


@pytest.mark.parametrize('store', STORES)
def test_vectors_with_heavy_head_stay_orthogonal(store):
  # A few large entries before a long flat tail: sequential float32 dot products
  # lose the tail, and orthogonality is 1e-5 and above.
  size = 300_000
  diagonal = np.zeros(size, np.float32)
  diagonal[:200] = np.logspace(2, -2, 200)
  vectors = (
    host_vectors.HostVectors(
      host_vectors.MemoryRows(21, size, DTYPES['float32'])
    )
    if store == 'memory'
    else device_vectors.DeviceVectors(21, size, DTYPES['float32'])
  )
  initial = np.random.default_rng(0).normal(size=size)
  arnoldi.iterate(
    lambda v: v * diagonal,
    vectors,
    arnoldi.start(vectors, as_slices(initial)),
    num_parameters=size,
    is_done=is_done(20),
  )
  # Sums of a block are float32, in as many parts as the processor has vector
  # lanes: 0.3e-6 to 2.1e-6 was seen.
  assert krylov_vectors.orthogonality_error(vectors) < 5e-6


def test_vectors_are_read_twice_a_step():
  vectors = make_vectors('memory', 13, 200)  # Blocks of 64: four of them.
  matrix = symmetric_matrix(np.linspace(0, 5, 200))
  reads = []
  read = vectors.rows.block
  vectors.rows.block = lambda *columns: reads.append(columns) or read(*columns)
  arnoldi.iterate(
    lambda v: (jnp.asarray(matrix, jnp.float32) @ v[0])[None],
    vectors,
    arnoldi.start(vectors, as_slices(np.ones(200))),
    num_parameters=200,
    is_done=is_done(12),
  )
  assert len(reads) == 4 * 2 * (12 + 1)  # And the norm of the first vector.


@pytest.mark.parametrize('store', STORES)
@pytest.mark.parametrize('kind', ['none', 'right', 'wrong'])
def test_orthogonal_whatever_coefficients_are_expected(store, kind):
  generator = np.random.default_rng(0)
  vectors = make_vectors(store, 21, 300)
  vectors.append(as_slices(np.eye(300)[0]), 1.0)
  for row in np.linalg.qr(generator.normal(size=(300, 20)))[0].T:
    residual, _, length = vectors.orthogonalise(
      as_slices(row), np.zeros(len(vectors) - 1)
    )
    vectors.append(residual, length)
  stored = dense(vectors)
  # Nearly all of it is in their space: a single pass would leave 1e-4.
  within = stored.T @ generator.normal(size=21)
  outside = generator.normal(size=300)
  outside -= stored.T @ (stored @ outside)
  vector = within + 1e-3 * outside / np.linalg.norm(outside)
  exact = stored.astype(np.float64) @ vector
  expected = {'none': 0, 'right': 1, 'wrong': -10}[kind] * exact[:-1]
  residual, coefficients, length = vectors.orthogonalise(
    as_slices(vector), expected
  )
  # float32 rounding of a vector of length 4, ten times more where it is wrong.
  np.testing.assert_allclose(coefficients, exact, atol=2e-5)
  np.testing.assert_allclose(length, 1e-3, rtol=2e-2)
  unit = np.asarray(residual).reshape(-1) / length
  assert abs(stored @ unit).max() < 1e-6


@pytest.mark.parametrize('store', STORES)
def test_thick_restart_converges_with_bounded_vectors(store):
  spectrum = np.concatenate([0.9 ** np.arange(40) * 10, np.zeros(160)])
  spectrum[-1] = -6
  matrix = symmetric_matrix(spectrum)
  counts = []
  vectors = make_vectors(store, 21, 200)
  converged = ritz.has_converged(8, 1e-4, keep_negative=False)
  state = arnoldi.iterate(
    lambda v: (jnp.asarray(matrix, jnp.float32) @ v[0])[None],
    vectors,
    arnoldi.start(vectors, as_slices(np.ones(200))),
    num_parameters=200,
    is_done=lambda state: state.num_products == 300 or converged(state),
    restart_policy=ritz.restart_policy(8, 20, keep_negative=False),
    on_step=lambda state: counts.append(len(vectors)),
  )
  assert converged(state)
  assert max(counts) == 21
  assert state.num_products > 20
  pairs = ritz.leading_pairs(ritz.ritz_pairs(state), 8, keep_negative=False)
  # The tolerance on residuals bounds eigenvalues at least as tightly.
  np.testing.assert_allclose(pairs.eigenvalues, spectrum[:8], rtol=1e-4)
  found = vectors.combine(pairs.coefficients, 0, 200)
  true = np.linalg.norm(matrix @ found.T - found.T * pairs.eigenvalues, axis=0)
  np.testing.assert_allclose(true, pairs.residual_norms, atol=2e-5)
  assert krylov_vectors.orthogonality_error(vectors) < 1e-5


def test_stores_agree_whatever_their_blocks():
  matrix = symmetric_matrix(np.linspace(0, 5, 130) ** 2)
  results = [dense(iterate(matrix, 12, store=store)[0]) for store in STORES]
  # The same float32 operations, summed in another order.
  np.testing.assert_allclose(*results, atol=1e-5)


def test_gram_matrix_of_two_stores():
  matrix = symmetric_matrix(np.linspace(0, 5, 130))
  for store in STORES:
    run = functools.partial(iterate, matrix, 6, store=store)
    one, _ = run()
    other, _ = run(initial=np.arange(130.0))
    np.testing.assert_allclose(
      one.gram(other), dense(one) @ dense(other).T, atol=1e-6
    )


@pytest.mark.parametrize(
  ('initial', 'scale', 'message'),
  [
    ([0.0, 0.0], 1, 'norm 0.0'),
    ([1.0, 1.0], np.nan, 'product of step 0 is not finite'),
  ],
)
def test_bad_input(initial, scale, message):
  with pytest.raises(errors.InputError, match=message):
    iterate(scale * np.eye(2), 2, initial=initial)
