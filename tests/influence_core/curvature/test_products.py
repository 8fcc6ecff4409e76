import functools
import json

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_selection
from influence_core.curvature import (
  operator as curvature_operator,
  products as curvature_products,
)
from influence_core.eigenpairs import (
  arnoldi,
  basis as basis_lib,
  host_vectors,
  krylov_vectors,
  trust as basis_trust,
)
from tests.kit import devices, marks

GENERATOR = np.random.default_rng(0)
SAMPLE = {
  'x': GENERATOR.normal(size=(23, 4)).astype(np.float32),
  'y': GENERATOR.normal(size=(23, 2)).astype(np.float32),
}
PARAMS = {
  'hidden': jnp.asarray(GENERATOR.normal(size=(4, 3)), jnp.float32),
  'out': jnp.asarray(GENERATOR.normal(size=(3, 2)), jnp.float32),
}
SIZE = 18


def outputs(params, features, activation=jnp.tanh):
  return activation(features['x'] @ params['hidden']) @ params['out']


def output_loss(predicted, features):
  return jnp.sum(jnp.cosh(predicted - features['y']), axis=-1)


def per_example_loss(params, features, activation=jnp.tanh):
  return output_loss(outputs(params, features, activation), features)


SPLIT = curvature_products.SplitLoss(outputs, output_loss)


@jax.custom_vjp
def square(x):
  return x * x


square.defvjp(lambda x: (x * x, x), lambda x, g: (2 * x * g,))


@jax.custom_vjp
def custom_tanh(x):
  return jnp.tanh(x)


# Neither the function nor its derivative has a forward derivative.
custom_tanh.defvjp(
  lambda x: (jnp.tanh(x), jnp.tanh(x)), lambda y, g: (g * (1 - square(y)),)
)


def explicit(curvature='hessian', paths=('.*',), l2_weight=0.0):
  """The whole matrix by its definition."""
  selected = parameter_selection.select_parameters(PARAMS, paths)
  flat, unravel = flatten_util.ravel_pytree(selected)

  def at(flat):
    return parameter_selection.replace_parameters(PARAMS, unravel(flat))

  def losses(flat):
    return per_example_loss(at(flat), SAMPLE)

  match curvature:
    case 'hessian':
      matrix = jax.hessian(lambda flat: losses(flat).mean())(flat)
    case 'empirical_fisher':
      gradients = jax.jacobian(losses)(flat)
      matrix = gradients.T @ gradients / 23
    case 'gauss_newton':
      jacobian = jax.jacobian(lambda flat: outputs(at(flat), SAMPLE))(flat)
      curved = jax.vmap(
        lambda predicted, y: jax.hessian(
          lambda p: output_loss(p[None], {'y': y[None]})[0]
        )(predicted)
      )(outputs(PARAMS, SAMPLE), SAMPLE['y'])
      matrix = jnp.einsum('boi,bop,bpj->ij', jacobian, curved, jacobian) / 23
  return np.asarray(matrix + l2_weight * jnp.eye(flat.size))


def make_operator(loss=per_example_loss, paths=('.*',), split=SPLIT, **options):
  return curvature_operator.CurvatureOperator(
    loss,
    PARAMS,
    sample=SAMPLE,
    parameter_paths=paths,
    split_loss=split,
    options=curvature_operator.CurvatureOptions(**options),
  )


def as_matrix(operator):
  rows = []
  for row in np.eye(operator.num_parameters, dtype=np.float32):
    slices = operator.slices(lambda start, stop, row=row: row[start:stop])
    rows.append(np.asarray(operator(slices)).reshape(-1))
  return np.stack(rows)[:, : operator.num_parameters]


# 23 examples: one microbatch with and without padding, many, one each.
@pytest.mark.parametrize(
  'microbatch_size', marks.slow_where([1, 5, 23, 64, None], [1, 23, 64])
)
@pytest.mark.parametrize(
  'curvature', ['hessian', 'gauss_newton', 'empirical_fisher']
)
def test_equals_explicit_matrix(curvature, microbatch_size):
  operator = make_operator(
    curvature=curvature, microbatch_size=microbatch_size, l2_weight=0.3
  )
  expected = explicit(curvature, l2_weight=0.3)
  # float32 sums of 23 terms.
  np.testing.assert_allclose(
    as_matrix(operator), expected, rtol=1e-5, atol=1e-5 * abs(expected).max()
  )
  assert operator.mode == 'forward over reverse'


@pytest.mark.slow
@pytest.mark.parametrize(
  'curvature', ['hessian', 'gauss_newton', 'empirical_fisher']
)
def test_loss_without_forward_derivative(curvature):
  split = curvature_products.SplitLoss(
    functools.partial(outputs, activation=custom_tanh), output_loss
  )
  operator = make_operator(
    functools.partial(per_example_loss, activation=custom_tanh),
    split=split,
    curvature=curvature,
  )
  assert operator.mode == 'reverse over reverse'
  expected = explicit(curvature)
  np.testing.assert_allclose(
    as_matrix(operator), expected, rtol=1e-5, atol=1e-5 * abs(expected).max()
  )


@pytest.mark.slow
def test_subset_of_the_parameters():
  np.testing.assert_allclose(
    as_matrix(make_operator(paths=('hidden',))),
    explicit(paths=('hidden',)),
    rtol=1e-4,
    atol=1e-4,
  )


def test_gauss_newton_needs_a_split_loss():
  with pytest.raises(errors.InputError, match='give the task a split_loss'):
    make_operator(curvature='gauss_newton', split=None)


def test_microbatch_follows_from_the_memory_budget():
  whole = make_operator()
  assert whole.microbatch_size == 23
  budget = whole.resident_bytes + whole.temporary_bytes - 1
  limited = make_operator(memory_budget_bytes=budget)
  assert limited.microbatch_size < 23
  np.testing.assert_allclose(as_matrix(whole), as_matrix(limited), atol=1e-5)
  with pytest.raises(errors.InputError, match='one example needs'):
    make_operator(memory_budget_bytes=whole.resident_bytes + 4 * SIZE)
  with pytest.raises(errors.InputError, match='parameters and vectors take'):
    make_operator(memory_budget_bytes=whole.resident_bytes + 1)


@pytest.mark.slow
@pytest.mark.parametrize('activation', [jnp.tanh, custom_tanh])
@pytest.mark.parametrize(
  'curvature', ['hessian', 'gauss_newton', 'empirical_fisher']
)
def test_kept_intermediate_values_change_nothing(curvature, activation):
  make = functools.partial(
    make_operator,
    functools.partial(per_example_loss, activation=activation),
    split=curvature_products.SplitLoss(
      functools.partial(outputs, activation=activation), output_loss
    ),
    curvature=curvature,
    microbatch_size=5,
    l2_weight=0.1,
  )
  everything = make()
  assert everything.num_kept == everything.num_microbatches == 5
  nothing = make(reserved_bytes=everything.unused_bytes + everything.kept_bytes)
  assert nothing.num_kept == nothing.kept_bytes == 0
  used = everything.resident_bytes + everything.temporary_bytes
  some = make(memory_budget_bytes=used + everything.kept_bytes // 2)
  assert some.num_kept == 2
  assert 0 <= some.unused_bytes < everything.kept_bytes / 5
  found = as_matrix(everything)
  expected = explicit(curvature, l2_weight=0.1)
  atol = 1e-5 * abs(expected).max()
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=atol)
  for operator in (nothing, some):
    # The same operations, fused in another way.
    np.testing.assert_allclose(as_matrix(operator), found, atol=atol)


def test_reserved_memory_that_cannot_be_had_is_not_waited_for():
  operator = make_operator(reserved_bytes=1 << 60)
  assert operator.num_kept == operator.num_microbatches


@pytest.mark.slow
@pytest.mark.parametrize('num_devices', [2, 3])
def test_sharded_parameters_on_several_devices(num_devices):
  done = devices.run_module(
    'tests.kit.curvature_on_devices', num_devices=num_devices
  )
  assert done.returncode == 0, done.stderr
  measured = json.loads(done.stdout)
  for values in measured.values():
    assert values['num_devices'] == num_devices
    assert values['error'] < 1e-5  # float32 sums in another order.
  assert measured['combined']['devices_of_a_block'] == 1
  assert measured['loss']['resident_bytes'] == 72 // num_devices
  # Parameters, vector and product: three times 18 entries of 4 bytes.
  assert measured['replicated']['resident_bytes'] == 3 * 72
  assert measured['sharded']['resident_bytes'] == 3 * 72 // num_devices


def test_random_vectors_do_not_depend_on_slices():
  operator = make_operator()
  vector = np.asarray(operator.random_vector([3])).reshape(-1)[:SIZE]
  assert len(set(vector.tolist())) == SIZE
  again = np.asarray(operator.random_vector([3], signs=True)).reshape(-1)[:SIZE]
  np.testing.assert_array_equal(again, np.where(vector < 0, -1, 1))


def fit(projection_dim, keep_negative=False, sample_size=23, **options):
  operator = make_operator(**options)
  vectors = host_vectors.HostVectors(
    host_vectors.MemoryRows(SIZE + 1, SIZE, krylov_vectors.DTYPES['float32'])
  )
  state = arnoldi.iterate(
    operator,
    vectors,
    arnoldi.start(vectors, operator.random_vector([0])),
    num_parameters=SIZE,
    is_done=lambda state: False,
  )
  pairs = basis_lib.kept_pairs(
    state, projection_dim, keep_negative=keep_negative
  )
  report = basis_lib.make_report(
    state, pairs, vectors, sample_size=sample_size, seconds=0.0
  )
  found = dict(basis_lib.eigenvectors(vectors, pairs, PARAMS))
  return operator, vectors, pairs, basis_lib.Basis(
    pairs.eigenvalues, found, report
  )  # fmt: skip


def test_basis_holds_eigenpairs_of_the_hessian():
  basis = fit(4)[-1]
  hessian = explicit()
  expected = np.sort(np.linalg.eigvalsh(hessian))[::-1][:4]
  np.testing.assert_allclose(basis.eigenvalues, expected, rtol=1e-4)
  assert basis.eigenvectors['hidden'].shape == (4, 4, 3)
  flat = np.concatenate(
    [basis.eigenvectors[path].reshape(4, -1) for path in ('hidden', 'out')], 1
  )
  np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-5)
  scale = expected[0]
  np.testing.assert_allclose(
    hessian @ flat.T, flat.T * basis.eigenvalues, atol=1e-5 * scale
  )
  assert max(basis.report.residuals) < 1e-4
  assert basis.report.num_unreliable == 0
  assert basis.report.objections == []


def test_negative_eigenvalues_are_kept_only_on_demand():
  spectrum = np.linalg.eigvalsh(explicit())
  assert (spectrum < 0).any()
  assert (fit(SIZE)[-1].eigenvalues > 0).all()
  everything = fit(SIZE, keep_negative=True)[-1]
  usable = spectrum < -1e-5 * abs(spectrum).max()
  assert (everything.eigenvalues < 0).sum() == usable.sum()
  assert (np.diff(np.abs(everything.eigenvalues)) <= 0).all()
  expected = -spectrum[spectrum < 0].sum() / np.abs(spectrum).sum()
  np.testing.assert_allclose(
    everything.report.negative_mass, expected, rtol=1e-3
  )


def test_no_positive_eigenvalue_is_an_error():
  state = arnoldi.ArnoldiState(-np.eye(3)[:, :2], np.zeros(2))
  with pytest.raises(errors.InputError, match='no eigenvalue of the sample'):
    basis_lib.kept_pairs(state, 2, keep_negative=False)


@pytest.mark.slow
@pytest.mark.parametrize('curvature', ['hessian', 'gauss_newton'])
def test_trace_estimate_is_near_the_trace(curvature):
  operator, vectors, pairs, _ = fit(4, curvature=curvature)
  estimate = basis_trust.estimate_trace(
    operator,
    (operator.random_vector([1, i], signs=True) for i in range(200)),
    inner_product=lambda a, b: float(jnp.vdot(a, b)),
    num_parameters=SIZE,
    kept=(vectors, pairs),
  )
  trace = np.trace(explicit(curvature))
  # Four standard errors are left with a probability of 6e-5.
  assert abs(estimate.trace - trace) < 4 * estimate.standard_error
  assert estimate.standard_error < 0.1 * trace
  np.testing.assert_allclose(
    estimate.captured, pairs.eigenvalues.sum() / estimate.trace
  )
  assert estimate.mean_curvature == estimate.trace / SIZE


def test_agreement_is_measured_by_principal_angles():
  _, vectors, pairs, _ = fit(3)
  same = basis_trust.subspace_agreement(vectors, pairs, vectors, pairs)
  np.testing.assert_allclose(same.cosines, 1, atol=1e-6)
  shifted = fit(4)[2].take(np.array([1, 2, 3]))
  part = basis_trust.subspace_agreement(vectors, pairs, vectors, shifted)
  np.testing.assert_allclose(part.cosines, [1, 1, 0], atol=1e-5)
  np.testing.assert_allclose(part.overlap, 2 / 3, atol=1e-5)
