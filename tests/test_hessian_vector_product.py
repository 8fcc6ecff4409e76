import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import (
  arnoldi,
  errors,
  hessian_vector_product,
  parameter_selection,
)
from influence_core import basis as basis_lib

GENERATOR = np.random.default_rng(0)
SAMPLE = {
  'x': GENERATOR.normal(size=(23, 4)).astype(np.float32),
  'y': GENERATOR.normal(size=23).astype(np.float32),
}
PARAMS = {
  'hidden': jnp.asarray(GENERATOR.normal(size=(4, 3)), jnp.float32),
  'out': jnp.asarray(GENERATOR.normal(size=3), jnp.float32),
}


def per_example_loss(params, features):
  predicted = jnp.tanh(features['x'] @ params['hidden']) @ params['out']
  return jnp.square(predicted - features['y'])


def explicit_hessian(paths=('.*',), l2_weight=0.0):
  selected = parameter_selection.select_parameters(PARAMS, paths)
  flat, unravel = flatten_util.ravel_pytree(selected)

  def mean_loss(flat):
    replaced = parameter_selection.replace_parameters(PARAMS, unravel(flat))
    return per_example_loss(replaced, SAMPLE).mean()

  return jax.hessian(mean_loss)(flat) + l2_weight * jnp.eye(flat.size)


def make_operator(**options):
  return hessian_vector_product.make_hessian_vector_product(
    per_example_loss, PARAMS, sample=SAMPLE, **options
  )


# 23 examples: one microbatch with and without padding, many, one each.
@pytest.mark.parametrize('microbatch_size', [1, 5, 23, 64])
def test_equals_explicit_hessian(microbatch_size):
  operator = make_operator(microbatch_size=microbatch_size, l2_weight=0.3)
  expected = explicit_hessian(l2_weight=0.3)
  found = jnp.stack([operator(row) for row in jnp.eye(15)])
  # float32 sums of 23 terms.
  np.testing.assert_allclose(found, expected, atol=1e-5)


def test_subset_of_the_parameters():
  operator = make_operator(parameter_paths=('hidden',))
  expected = explicit_hessian(('hidden',))
  vector = jnp.arange(12.0)
  np.testing.assert_allclose(
    operator(vector), expected @ vector, rtol=1e-4, atol=1e-4
  )


def fit(projection_dim, keep_negative=False):
  factorization = arnoldi.arnoldi_iteration(
    make_operator(), GENERATOR.normal(size=15), num_iterations=15
  )
  return basis_lib.distill_basis(
    factorization,
    PARAMS,
    projection_dim=projection_dim,
    sample_size=23,
    seconds=0.0,
    keep_negative=keep_negative,
  )


def test_basis_holds_eigenpairs_of_the_hessian():
  basis = fit(4)
  hessian = np.asarray(explicit_hessian())
  expected = np.sort(np.linalg.eigvalsh(hessian))[::-1][:4]
  np.testing.assert_allclose(basis.eigenvalues, expected, rtol=1e-4)
  assert basis.eigenvectors['hidden'].shape == (4, 4, 3)
  flat = np.concatenate(
    [basis.eigenvectors[path].reshape(4, -1) for path in ('hidden', 'out')], 1
  )
  np.testing.assert_allclose(flat @ flat.T, np.eye(4), atol=1e-5)
  np.testing.assert_allclose(
    hessian @ flat.T, flat.T * basis.eigenvalues, atol=1e-4
  )
  assert max(basis.report.residuals) < 1e-4
  assert basis.report.num_unreliable == 0


def test_negative_eigenvalues_are_kept_only_on_demand():
  spectrum = np.linalg.eigvalsh(np.asarray(explicit_hessian()))
  assert (spectrum < 0).any()
  assert (fit(15).eigenvalues > 0).all()
  everything = fit(15, keep_negative=True)
  assert (everything.eigenvalues < 0).sum() == (spectrum < -1e-5).sum()
  assert (np.diff(np.abs(everything.eigenvalues)) <= 0).all()
  expected = -spectrum[spectrum < 0].sum() / np.abs(spectrum).sum()
  np.testing.assert_allclose(
    everything.report.negative_mass, expected, rtol=1e-3
  )


def test_no_positive_eigenvalue_is_an_error():
  factorization = arnoldi.arnoldi_iteration(
    lambda v: -v * jnp.arange(1, 4), [1.0, 1, 1], num_iterations=3
  )
  with pytest.raises(errors.InputError, match='no eigenvalue of the Hessian'):
    basis_lib.distill_basis(
      factorization,
      {'w': jnp.zeros(3)},
      projection_dim=2,
      sample_size=1,
      seconds=0.0,
    )
