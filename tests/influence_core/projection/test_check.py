"""The start-up check lets right projections pass and names what is wrong."""

from flax import nnx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_selection
from influence_core.projection import (
  check as projection_check,
  projector as gradient_projection,
  weight_sites,
)
from influence_core.projection.options import ProjectionOptions

GENERATOR = np.random.default_rng(0)
FEATURES = {'x': GENERATOR.standard_normal((4, 6, 5)).astype(np.float32)}


class Network(nn.Module):
  """Two layers with normalisation by running averages."""

  @nn.compact
  def __call__(self, x):
    x = nn.Dense(7, name='first')(x)
    x = nn.BatchNorm(use_running_average=True)(x)
    return nn.Dense(3, name='second')(nn.tanh(x))


VARIABLES = Network().init(jax.random.key(0), FEATURES['x'])


def per_example_loss(params, features):
  output = Network().apply(params, features['x'])
  return jnp.sum(jnp.square(output), axis=(1, 2))


def check(loss=per_example_loss, params=VARIABLES, **options):
  basis = {
    path: GENERATOR.standard_normal((3, *leaf.shape)).astype(np.float32)
    for path, leaf in parameter_selection.select_parameters(
      params, ['^params/']
    ).items()
  }
  projector = gradient_projection.GradientProjector(
    loss,
    params,
    eigenvectors=basis,
    features=FEATURES,
    options=ProjectionOptions(**options),
    num_examples=4,
  )
  return projection_check.check_projector(
    projector, loss, params, eigenvectors=basis, features=FEATURES
  )


def test_right_projection_passes():
  assert check() < 1e-6
  assert check(parameter_groups=('first',)) < 1e-6
  # Two factors of 8 bits each.
  assert 0 < check(basis_dtype='bfloat16') < 1e-2


def test_loss_per_token_passes():
  def token_losses(params, features):
    output = Network().apply(params, features['x'])
    return jnp.sum(jnp.square(output), axis=2)

  assert check(token_losses) < 1e-6


def test_wrong_projection_names_the_parameter(monkeypatch):
  right = weight_sites.Matmul.left

  def wrong(self, data):
    left = right(self, data)
    return 2 * left if left.shape[-1] == 7 else left

  monkeypatch.setattr(weight_sites.Matmul, 'left', wrong)
  with pytest.raises(
    errors.InputError, match='the worst parameter is params/second/kernel'
  ):
    check()


def test_wrong_projection_of_the_only_parameter_names_it(monkeypatch):
  right = weight_sites.Matmul.left
  monkeypatch.setattr(
    weight_sites.Matmul, 'left', lambda *args: 2 * right(*args)
  )

  def loss(params, features):
    return jnp.sum(jnp.square(features['x'] @ params['params']['w']), (1, 2))

  with pytest.raises(errors.InputError, match='parameter is params/w'):
    check(loss, {'params': {'w': jnp.ones((5, 2))}})


def linear_loss(params, features):
  return jnp.sum(jnp.square(features['x'] @ params['params']['w']), (1, 2))


def infinite_where(is_bad):
  """A loss whose gradient is not finite for some examples."""

  def loss(params, features):
    scale = jnp.sum(params['params']['w'] * 0)
    bad = is_bad(features['x'][:, 0, 0])
    return linear_loss(params, features) + jnp.sqrt(jnp.where(bad, scale, 1.0))

  return loss


LINEAR = {'params': {'w': jnp.ones((5, 2))}}


def test_gradients_that_are_not_finite_are_left_out():
  second = FEATURES['x'][1, 0, 0]
  assert check(infinite_where(lambda first: first == second), LINEAR) < 1e-6
  assert check(infinite_where(lambda first: first == first), LINEAR) is None


def test_parameters_in_low_precision_may_round():
  params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), LINEAR)
  assert 1e-4 < check(linear_loss, params) < 3e-2


class Counter(nnx.Module):
  """Changes when it is called."""

  def __init__(self):
    self.calls = nnx.Variable(jnp.array(0.0))


def test_loss_that_changes_a_module_is_told_so():
  counter = Counter()

  def loss(params, features):
    counter.calls[...] += 1.0
    return per_example_loss(params, features)

  with pytest.raises(
    errors.InputError, match=r'cannot be traced .*TraceContext'
  ):
    check(loss)
