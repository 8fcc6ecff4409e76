import flax.linen as nn
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_core import errors, parameter_selection
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from tests.kit import marks


class Network(nn.Module):
  @nn.compact
  def __call__(self, images):
    images = nn.relu(nn.Conv(3, (3, 3))(images))
    images = nn.avg_pool(images, (2, 2), (2, 2))
    return nn.Dense(4)(nn.LayerNorm()(images.reshape(len(images), -1)))


GENERATOR = np.random.default_rng(0)
FEATURES = {
  'image': GENERATOR.normal(size=(10, 6, 6, 1)).astype(np.float32),
  'label': GENERATOR.integers(0, 4, 10),
}
PARAMS = Network().init(jax.random.key(0), FEATURES['image'])


def per_example_loss(params, features):
  return optax.softmax_cross_entropy_with_integer_labels(
    Network().apply(params, features['image']), features['label']
  )


def random_basis(patterns=('.*',), dim=7):
  selected = parameter_selection.select_parameters(PARAMS, patterns)
  return {
    path: GENERATOR.normal(size=(dim, *leaf.shape)).astype(np.float32)
    for path, leaf in selected.items()
  }


def explicit(basis):
  """Gradients one example at a time, and dense products in float64."""
  rows, losses = [], []
  for i in range(10):
    example = {key: value[i : i + 1] for key, value in FEATURES.items()}
    loss, gradient = jax.value_and_grad(
      lambda p, example=example: per_example_loss(p, example).sum()
    )(PARAMS)
    leaves = parameter_selection.all_parameters(gradient)
    rows.append(flatten_util.ravel_pytree({p: leaves[p] for p in basis})[0])
    losses.append(loss)
  gradients = np.asarray(jnp.stack(rows), np.float64)
  vectors = np.concatenate(
    [basis[path].reshape(len(basis[path]), -1) for path in sorted(basis)],
    axis=1,
  )
  return gradients @ vectors.T, np.square(gradients).sum(1), np.array(losses)


def make_projector(loss=per_example_loss, basis=None, **options):
  return gradient_projection.GradientProjector(
    loss,
    PARAMS,
    eigenvectors=random_basis() if basis is None else basis,
    features=FEATURES,
    options=ProjectionOptions(**options),
  )


# 10 examples: ragged tail, exact fit, larger than all, one at a time.
@pytest.mark.parametrize(
  'batch_size', marks.slow_where([1, 4, 5, 10, 16], [1, 5, 10])
)
@pytest.mark.parametrize('patterns', [('.*',), ('Dense',)])
def test_equals_explicit_gradients(batch_size, patterns):
  basis = random_basis(patterns)
  found = make_projector(basis=basis, batch_size=batch_size).project(FEATURES)
  # float32 against float64, sums of at most 150 terms of order one.
  for value, expected in zip(found, explicit(basis), strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_compiles_once_for_all_batches():
  traces = []

  def counted(params, features):
    traces.append(1)
    return per_example_loss(params, features)

  projector = make_projector(counted, batch_size=4)
  num_traces = len(traces)
  assert num_traces > 0
  projector.project(FEATURES)
  projector.project({key: value[:3] for key, value in FEATURES.items()})
  assert len(traces) == num_traces


@pytest.mark.slow
def test_bfloat16_basis_is_close_and_not_the_same():
  basis = random_basis()
  exact = make_projector(basis=basis).project(FEATURES)
  rounded = make_projector(basis=basis, basis_dtype='bfloat16').project(
    FEATURES
  )
  error = np.abs(rounded.projections - exact.projections)
  # Both factors of a product are rounded to 8 bits, and errors average out.
  assert 0 < error.max() < 2 * 2**-8 * np.abs(exact.projections).max()
  np.testing.assert_allclose(
    rounded.squared_gradient_norms, exact.squared_gradient_norms, rtol=1e-6
  )


@pytest.mark.slow
def test_memory_budget_bounds_the_batch():
  large = make_projector()
  # Half of what a full batch takes, so that a smaller one must be found.
  budget = large.peak_bytes - large.program.temporary_bytes // 2
  # Parameters and basis may take 60 % of a budget.
  resident = large.memory.parameter_bytes + large.memory.basis_bytes
  assert resident < 0.6 * budget
  small = make_projector(memory_budget_bytes=budget)
  assert small.peak_bytes <= budget
  assert 1 <= small.batch_size < large.batch_size
  basis = random_basis()
  np.testing.assert_allclose(
    make_projector(basis=basis, memory_budget_bytes=budget)
    .project(FEATURES)
    .projections,
    explicit(basis)[0],
    rtol=1e-4,
    atol=1e-4,
  )


@pytest.mark.slow
def test_basis_that_does_not_fit_is_streamed():
  basis = random_basis(dim=40)
  memory = make_projector(basis=basis).memory
  # Parameters and basis may take 60 % of a budget: this is room for 17 of the
  # 40 eigenvectors.
  vector_bytes = memory.basis_bytes / 40
  budget = int((memory.parameter_bytes + 17.5 * vector_bytes) / 0.6)
  projector = make_projector(basis=basis, memory_budget_bytes=budget)
  assert projector.memory.placement == 'streamed'
  assert projector.memory.num_blocks == 3
  assert projector.peak_bytes <= budget
  assert projector.call_size >= 4096
  found = projector.project(FEATURES)
  for value, expected in zip(found, explicit(basis), strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'batch_size': 0}, 'batch_size is 0, expected a positive multiple'),
    ({'batch_size': -4}, 'batch_size is -4, expected a positive multiple'),
    ({'basis_dtype': 'float16'}, "basis_dtype is 'float16', expected one of"),
    ({'basis_placement': 'disk'}, "basis_placement is 'disk', expected one of"),
    ({'memory_budget_bytes': 1000}, 'the memory budget is 1,000 bytes'),
    ({'memory_budget_bytes': 8_000}, 'one example needs'),
    ({'memory_budget_bytes': 60_000, 'batch_size': 4096}, 'batch_size 4096 ne'),
    ({'parameter_groups': ('Absent',)}, "parameter group 'Absent' has no"),
    ({'parameter_groups': ('(',)}, "parameter_groups has '\\(', which is not"),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(errors.InputError, match=message):
    make_projector(**options)


def test_basis_of_another_shape_is_refused():
  basis = random_basis()
  path = 'params/Dense_0/kernel'
  basis[path] = basis[path][:, :5]
  with pytest.raises(errors.InputError, match='the basis has params/Dense_0'):
    make_projector(basis=basis)


def test_empty_selection_is_refused():
  with pytest.raises(errors.InputError, match='the basis has no parameter'):
    make_projector(basis={})


def test_loss_with_fixed_batch_size_is_named():
  def loss(params, features):
    return per_example_loss(params, features).reshape(10)

  with pytest.raises(errors.InputError, match='fails on a batch of one'):
    make_projector(loss)


def test_loss_of_wrong_shape_is_named():
  def loss(params, features):
    return per_example_loss(params, features).sum()

  with pytest.raises(errors.InputError, match=r'returned shape \(\)'):
    make_projector(loss)


def test_groups_add_up_to_the_whole():
  basis = random_basis()
  whole = make_projector(basis=basis).project(FEATURES)
  projector = make_projector(
    basis=basis, parameter_groups=('Conv_0', 'Dense_0/kernel')
  )
  assert projector.group_names == ('Conv_0', 'Dense_0/kernel', 'other')
  split = projector.project(FEATURES)
  assert split.projections.shape == (10, 3, 7)
  np.testing.assert_allclose(
    split.projections.sum(axis=1), whole.projections, rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(
    split.squared_gradient_norms.sum(axis=1),
    whole.squared_gradient_norms,
    rtol=1e-5,
  )
  conv = {path: basis[path] for path in basis if 'Conv_0' in path}
  only = make_projector(basis=conv).project(FEATURES)
  np.testing.assert_allclose(
    split.projections[:, 0], only.projections, rtol=1e-4, atol=1e-5
  )


def test_windows_of_long_sequences_share_a_basis():
  """Where they are cut, there are equations between the scans of others."""
  window, params = 4, {'w': GENERATOR.normal(size=(2, 3, 3)).astype(np.float32)}

  def loss(params, features):
    x = features['x']
    rows = x.reshape(-1, min(window, x.shape[1]), x.shape[2])
    rows, _ = jax.lax.scan(
      lambda rows, w: (jnp.tanh(rows @ w), None), rows, params['w']
    )
    return jnp.square(rows).reshape(len(x), -1).sum(axis=1)

  def sequences(length):
    return {'x': GENERATOR.normal(size=(5, length, 3)).astype(np.float32)}

  basis = {'w': GENERATOR.normal(size=(6, 2, 3, 3)).astype(np.float32)}
  long, short = sequences(12), sequences(4)
  projector = gradient_projection.GradientProjector(
    loss, params, eigenvectors=basis, features=long
  )
  for features in (short, long):
    gradients = jax.vmap(
      jax.grad(lambda w, x: loss({'w': w}, {'x': x[None]})[0]), (None, 0)
    )(params['w'], features['x'])
    expected = np.einsum('nlij,klij->nk', gradients, basis['w'])
    np.testing.assert_allclose(
      projector.project(features).projections,
      expected,
      # float32 sums in another order.
      atol=1e-5 * np.abs(expected).max(),
    )
