"""EK-FAC: factors, eigenvalues and solutions against explicit matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import parameter_selection
from influence_core.baselines import ekfac
from influence_core.damping import Damping
from influence_core.subspaces import factored_gradients, factored_sample
from pipeline.bases import stored_basis
from tests.kit import marks, projection_cases

CASES = {case.name: case for case in projection_cases.hard_cases()}


def sample_of(case):
  gradients = factored_gradients.FactoredGradients(
    case.per_example_loss,
    case.params,
    selected=parameter_selection.select_parameters(case.params),
    features=case.features,
  )
  leaves = parameter_selection.all_parameters(case.params)
  return factored_sample.FactoredSample(gradients, leaves, [[case.features]])


def per_example_gradients(case):
  """[num_examples, *shape] by path, by automatic differentiation alone."""
  selected = parameter_selection.select_parameters(case.params)

  def loss(selected, example):
    params = parameter_selection.replace_parameters(case.params, selected)
    one = jax.tree.map(lambda leaf: leaf[None], example)
    return case.per_example_loss(params, one)[0]

  return jax.vmap(jax.grad(loss), (None, 0))(selected, case.features)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dense_applied_twice', 'convolution_grouped'])
def test_blocks_are_the_diagonal_in_their_eigenvectors(name):
  """Of the explicit Fisher matrix of each parameter; so is the solution."""
  case = CASES[name]
  sample = sample_of(case)
  gradients = sample.gradients
  blocks = ekfac.fit(sample)
  exact = per_example_gradients(case)
  solved = ekfac.solve(
    blocks, gradients.matrices, exact, damping=Damping(0.1), l2_weight=0.2
  )
  for path, block in blocks.items():
    rows = np.asarray(exact[path]).reshape(len(exact[path]), -1)
    fisher = rows.T.astype(np.float64) @ rows / len(rows)
    size = block.eigenvalues.size
    units = jnp.eye(size).reshape(size, *block.eigenvalues.shape)
    vectors = gradients.matrices[path].from_matrices(
      block.from_eigenvectors(units), exact[path].shape[1:]
    )
    basis = np.asarray(vectors, np.float64).reshape(size, size)
    np.testing.assert_allclose(basis @ basis.T, np.eye(size), atol=1e-5)
    diagonal = np.diag(basis @ fisher @ basis.T)
    np.testing.assert_allclose(
      block.eigenvalues.ravel(), diagonal, atol=1e-5 * diagonal.max()
    )
    inverse = basis.T @ np.diag(1 / (diagonal + 0.3)) @ basis
    np.testing.assert_allclose(
      np.asarray(solved[path]).reshape(rows.shape),
      rows @ inverse,
      atol=1e-5 * np.abs(rows).max() / 0.3,
    )


def test_eigenvectors_are_those_of_the_kronecker_factors():
  """A layer with one position: second moments of inputs and of outputs."""
  generator = np.random.default_rng(0)
  x = generator.normal(size=(40, 3)).astype(np.float32)
  y = generator.normal(size=(40, 2)).astype(np.float32)
  w = generator.normal(size=(3, 2)).astype(np.float32)

  def loss(params, features):
    return jnp.sum(jnp.square(features['x'] @ params['w'] - features['y']), 1)

  gradients = factored_gradients.FactoredGradients(
    loss, {'w': w}, selected={'w': w}, features={'x': x, 'y': y}
  )
  sample = factored_sample.FactoredSample(
    gradients, {'w': w}, [[{'x': x, 'y': y}]]
  )
  block = ekfac.fit(sample)['w']
  cotangents = 2 * (x @ w - y)
  for vectors, factor in ((block.rows, x), (block.columns, cotangents)):
    turned = vectors[0].T @ (factor.T @ factor / 40) @ vectors[0]
    np.testing.assert_allclose(
      turned, np.diag(np.diag(turned)), atol=1e-5 * np.abs(turned).max()
    )


@pytest.mark.parametrize('scanned', marks.slow_where([False, True], [False]))
def test_relative_damping_is_of_each_layer_by_itself(scanned):
  """Layers of one parameter, one a hundred times as curved, in float64."""
  generator = np.random.default_rng(0)
  scales = np.array([1.0, 10.0])[:, None, None]
  x = (scales * generator.normal(size=(2, 30, 3))).astype(np.float32)
  y = generator.normal(size=(30, 2, 2)).astype(np.float32)
  w = generator.normal(size=(2, 3, 2)).astype(np.float32)
  features = {'x': x.swapaxes(0, 1), 'y': y}  # Examples first.

  def apply(total, layer):
    w, x, y = layer
    return total + jnp.sum(jnp.square(x @ w - y), axis=1), None

  def loss(params, features):
    layers = (
      params['w'],
      features['x'].swapaxes(0, 1),
      features['y'].swapaxes(0, 1),
    )
    start = jnp.zeros(len(features['y']))
    if scanned:
      return jax.lax.scan(apply, start, layers)[0]
    predicted = jnp.einsum('lei,lio->leo', layers[1], layers[0])
    return jnp.sum(jnp.square(predicted - layers[2]), axis=(0, 2))

  gradients = factored_gradients.FactoredGradients(
    loss, {'w': w}, selected={'w': w}, features=features
  )
  blocks = ekfac.fit(
    factored_sample.FactoredSample(gradients, {'w': w}, [[features]])
  )
  vectors = generator.normal(size=(4, 2, 3, 2)).astype(np.float32)
  found = ekfac.solve(
    blocks,
    gradients.matrices,
    {'w': vectors},
    damping=Damping(0.3, is_relative=True),
    l2_weight=0.5,
  )['w']
  for layer in range(2):
    a = x[layer].astype(np.float64)
    b = 2 * (a @ w[layer] - y[:, layer])
    rows, columns = (np.linalg.eigh(m.T @ m)[1] for m in (a, b))
    turned = np.einsum('ei,ej->eij', a @ rows, b @ columns)
    values = np.square(turned).mean(axis=0) + 0.5
    # By the trace of the explicit Fisher matrix, and the L2 term.
    norms = np.square(a).sum(axis=1) * np.square(b).sum(axis=1)
    mean = norms.mean() / 6 + 0.5
    solved = rows.T @ vectors[:, layer] @ columns / (values + 0.3 * mean)
    expected = rows @ solved @ columns.T
    # float32 moments and products.
    np.testing.assert_allclose(
      found[:, layer], expected, atol=1e-4 * np.abs(expected).max()
    )


@pytest.mark.slow
def test_several_devices_give_the_same(influence_process, task_flags, tmp_path):
  vectors = []
  for devices in (1, 3):
    out = tmp_path / str(devices)
    done = influence_process(
      *('query-basis', *task_flags, '--out', out, '--method', 'ekfac'),
      *('--query_split', 'test[:3]'),
      devices=devices,
    )
    assert done.status == 0, done.stderr
    basis = stored_basis.load(stored_basis.load_record(str(out)))
    vectors.append(basis.eigenvectors['weights'])
  np.testing.assert_allclose(vectors[1], vectors[0], rtol=1e-4)
