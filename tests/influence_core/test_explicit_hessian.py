"""The whole method against exact computation on a trained network."""

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from sklearn import datasets

from influence_core.curvature import operator as curvature_operator
from influence_core.eigenpairs import (
  arnoldi,
  basis as basis_lib,
  host_vectors,
  krylov_vectors,
)
from influence_core.projection import projector as gradient_projection
from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions

pytestmark = pytest.mark.slow

L2_WEIGHT = 1e-3
NUM_TRAIN = 500
NUM_QUERIES = 20
NUM_STEPS = 400

# What the eigenpairs that are left out add to an influence is damped by this:
# with 200 of 1,210 pairs and exact eigenvectors the rank correlation is 0.92
# at a damping of 0.01 and 0.997 at 0.1, a sixth of the largest eigenvalue.
PROJECTION_DIM = 200
DAMPING = 0.1


def outputs(params, features):
  hidden = jnp.tanh(features['x'] @ params['hidden'] + params['bias'])
  return hidden @ params['out']


def per_example_loss(params, features):
  return optax.softmax_cross_entropy_with_integer_labels(
    outputs(params, features), features['label']
  )


@pytest.fixture(name='trained', scope='module')
def fixture_trained():
  """1,200 parameters at a minimum of the regularised loss of real digits."""
  images, labels = datasets.load_digits(return_X_y=True)
  features = {
    'x': np.asarray(images / 16, np.float32),
    'label': np.asarray(labels, np.int32),
  }
  train = jax.tree.map(lambda leaf: leaf[:NUM_TRAIN], features)
  queries = jax.tree.map(lambda leaf: leaf[-NUM_QUERIES:], features)
  generator = np.random.default_rng(0)
  shapes = {'bias': (16,), 'hidden': (64, 16), 'out': (16, 10)}
  params = {
    name: jnp.asarray(0.2 * generator.normal(size=shape), jnp.float32)
    for name, shape in shapes.items()
  }
  flat, unravel = flatten_util.ravel_pytree(params)

  def loss(flat):
    mean = per_example_loss(unravel(flat), train).mean()
    return mean + 0.5 * L2_WEIGHT * flat @ flat

  optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 2000))

  @jax.jit
  def step(flat, state):
    updates, state = optimizer.update(jax.grad(loss)(flat), state)
    return flat + updates, state

  state = optimizer.init(flat)
  for _ in range(2000):
    flat, state = step(flat, state)
  assert flat.size >= 1000
  return unravel(flat), train, queries, np.asarray(jax.hessian(loss)(flat))


@pytest.fixture(name='fitted', scope='module')
def fixture_fitted(trained):
  params, train, _, hessian = trained
  operator = curvature_operator.CurvatureOperator(
    per_example_loss,
    params,
    sample=train,
    options=curvature_operator.CurvatureOptions(l2_weight=L2_WEIGHT),
  )
  vectors = host_vectors.HostVectors(
    host_vectors.MemoryRows(
      NUM_STEPS + 1, len(hessian), krylov_vectors.DTYPES['float32']
    )
  )
  state = arnoldi.iterate(
    operator,
    vectors,
    arnoldi.start(vectors, operator.random_vector([0])),
    num_parameters=len(hessian),
    is_done=lambda state: state.num_products == NUM_STEPS,
  )
  return vectors, state


def test_leading_eigenvalues(trained, fitted):
  expected = np.linalg.eigvalsh(trained[-1].astype(np.float64))[::-1]
  pairs = basis_lib.kept_pairs(fitted[1], 30, keep_negative=False)
  # Relative to each eigenvalue; float32 products are good to about 1e-6.
  np.testing.assert_allclose(pairs.eigenvalues, expected[:30], rtol=1e-5)


def test_vectors_stay_orthogonal(fitted):
  assert len(fitted[0]) == NUM_STEPS + 1
  assert krylov_vectors.orthogonality_error(fitted[0]) <= 1e-5


def test_influence_agrees_with_the_inverse_hessian(trained, fitted):
  params, train, queries, hessian = trained
  vectors, state = fitted
  pairs = basis_lib.kept_pairs(state, PROJECTION_DIM, keep_negative=False)
  projector = gradient_projection.GradientProjector(
    per_example_loss,
    params,
    eigenvectors=dict(basis_lib.eigenvectors(vectors, pairs, params)),
    features=train,
  )
  inverse = influence_scores.inverse_eigenvalues(
    pairs.eigenvalues, ScoreOptions(damping=DAMPING)
  )
  found = (projector.project(queries).projections * inverse) @ (
    projector.project(train).projections.T
  )
  gradients = [exact_gradients(params, part) for part in (queries, train)]
  damped = hessian.astype(np.float64) + DAMPING * np.eye(len(hessian))
  exact = gradients[0] @ np.linalg.solve(damped, gradients[1].T)
  for row, exact_row in zip(found, exact, strict=True):
    assert stats.spearmanr(row, exact_row).statistic >= 0.99


def exact_gradients(params, features) -> np.ndarray:
  """[num_examples, num_parameters] float64."""
  flat, unravel = flatten_util.ravel_pytree(params)

  def loss(flat, example):
    batch = jax.tree.map(lambda leaf: leaf[None], example)
    return per_example_loss(unravel(flat), batch)[0]

  gradients = jax.vmap(jax.grad(loss), in_axes=(None, 0))(flat, features)
  return np.asarray(gradients, np.float64)
