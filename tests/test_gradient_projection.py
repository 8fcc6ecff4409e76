import flax.linen as nn
import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_core import errors, gradient_projection, parameter_selection


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
    [basis[path].reshape(7, -1) for path in sorted(basis)], axis=1
  )
  return gradients @ vectors.T, np.square(gradients).sum(1), np.array(losses)


# 10 examples: ragged tail, exact fit, larger than all, one at a time.
@pytest.mark.parametrize('batch_size', [1, 4, 5, 10, 16])
@pytest.mark.parametrize('patterns', [('.*',), ('Dense',)])
def test_equals_explicit_gradients(batch_size, patterns):
  basis = random_basis(patterns)
  projector = gradient_projection.GradientProjector(
    per_example_loss, PARAMS, eigenvectors=basis, batch_size=batch_size
  )
  found = projector.project(FEATURES)
  # float32 against float64, sums of at most 150 terms of order one.
  for value, expected in zip(found, explicit(basis), strict=True):
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_compiles_once_for_all_batches():
  traces = []

  def counted(params, features):
    traces.append(1)
    return per_example_loss(params, features)

  projector = gradient_projection.GradientProjector(
    counted, PARAMS, eigenvectors=random_basis(), batch_size=4
  )
  projector.project(FEATURES)
  after_first = len(traces)
  assert after_first > 0
  projector.project({key: value[:3] for key, value in FEATURES.items()})
  projector.project(FEATURES)
  assert len(traces) == after_first


@pytest.mark.parametrize('batch_size', [0, -4])
def test_batch_size_must_fit_the_devices(batch_size):
  with pytest.raises(errors.InputError, match=f'batch_size is {batch_size}'):
    gradient_projection.GradientProjector(
      per_example_loss,
      PARAMS,
      eigenvectors=random_basis(),
      batch_size=batch_size,
    )


def test_basis_of_another_shape_is_refused():
  basis = random_basis()
  path = 'params/Dense_0/kernel'
  basis[path] = basis[path][:, :5]
  with pytest.raises(errors.InputError, match='the basis has params/Dense_0'):
    gradient_projection.GradientProjector(
      per_example_loss, PARAMS, eigenvectors=basis, batch_size=4
    )
