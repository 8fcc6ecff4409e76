"""EK-FAC: factors, eigenvalues and solutions against explicit matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_selection
from influence_core.baselines import ekfac, pseudo_gradients
from influence_core.curvature import products as curvature_products
from influence_core.subspaces import factored_gradients
from pipeline.bases import stored_basis
from tests.kit import marks, projection_cases

CASES = {case.name: case for case in projection_cases.hard_cases()}
# Every kind of site: products, shared weights, batches, convolutions, lookups.
NAMES = [
  'dense_applied_twice',
  'weight_as_left_operand',
  'weight_with_batch_dimensions',
  'convolution_grouped',
  'embedding_of_repeated_ids',
  'checkpoint_on_function',
  'gru',
  'language_model',
  'language_model_scanned',
  'vision_transformer',
]


def factored(case, loss=None, features=None):
  return factored_gradients.FactoredGradients(
    loss or case.per_example_loss,
    case.params,
    selected=parameter_selection.select_parameters(case.params),
    features=case.features if features is None else features,
  )


def per_example_gradients(case):
  """[num_examples, *shape] by path, by automatic differentiation alone."""
  selected = parameter_selection.select_parameters(case.params)

  def loss(selected, example):
    params = parameter_selection.replace_parameters(case.params, selected)
    one = jax.tree.map(lambda leaf: leaf[None], example)
    return case.per_example_loss(params, one)[0]

  return jax.vmap(jax.grad(loss), (None, 0))(selected, case.features)


# Compiled in more than a second each, but for one.
@pytest.mark.parametrize(
  'name',
  marks.slow_where(NAMES, {*NAMES} - {'weight_as_left_operand'}),
)
def test_factors_make_up_the_gradient(name):
  case = CASES[name]
  gradients = factored(case)
  leaves = parameter_selection.all_parameters(case.params)
  losses, factors = jax.vmap(
    lambda example: gradients.factors(leaves, example)
  )(case.features)
  np.testing.assert_allclose(
    losses, case.per_example_loss(case.params, case.features), rtol=1e-5
  )
  expected = per_example_gradients(case)
  assert factors.keys() == expected.keys()
  for path, (left, right) in factors.items():
    matrices = jnp.einsum('ebtr,ebtc->ebrc', left, right)
    found = gradients.matrices[path].from_matrices(matrices)
    largest = np.abs(expected[path]).max()
    # float32 sums in another order; gradients that are zero have rounding.
    np.testing.assert_allclose(
      found, expected[path], atol=1e-5 * max(largest, 1e-2), err_msg=path
    )
    np.testing.assert_allclose(
      gradients.matrices[path].to_matrices(expected[path]),
      matrices,
      atol=1e-5 * max(largest, 1e-2),
      err_msg=path,
    )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['dense_applied_twice', 'convolution_grouped'])
def test_blocks_are_the_diagonal_in_their_eigenvectors(name):
  """Of the explicit Fisher matrix of each parameter; so is the solution."""
  case = CASES[name]
  gradients = factored(case)
  leaves = parameter_selection.all_parameters(case.params)
  blocks = ekfac.fit(gradients, leaves, case.features)
  exact = per_example_gradients(case)
  solved = ekfac.solve(
    blocks, gradients.matrices, exact, damping=0.1, l2_weight=0.2
  )
  for path, block in blocks.items():
    rows = np.asarray(exact[path]).reshape(len(exact[path]), -1)
    fisher = rows.T.astype(np.float64) @ rows / len(rows)
    size = block.eigenvalues.size
    units = jnp.eye(size).reshape(size, *block.eigenvalues.shape)
    vectors = gradients.matrices[path].from_matrices(
      block.from_eigenvectors(units)
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
  block = ekfac.fit(gradients, {'w': w}, {'x': x, 'y': y})['w']
  cotangents = 2 * (x @ w - y)
  for vectors, factor in ((block.rows, x), (block.columns, cotangents)):
    turned = vectors[0].T @ (factor.T @ factor / 40) @ vectors[0]
    np.testing.assert_allclose(
      turned, np.diag(np.diag(turned)), atol=1e-5 * np.abs(turned).max()
    )


@pytest.mark.slow
def test_damping_follows_the_mean_eigenvalue():
  case = CASES['dense_applied_twice']
  gradients = factored(case)
  leaves = parameter_selection.all_parameters(case.params)
  blocks = ekfac.fit(gradients, leaves, case.features)
  exact = per_example_gradients(case)

  def solve(damping):
    return ekfac.solve(
      blocks, gradients.matrices, exact, damping=damping, l2_weight=0.0
    )

  damping = 0.1 * float(jnp.mean(blocks['w'].eigenvalues))
  np.testing.assert_allclose(
    solve(None)['w'], solve(damping)['w'], rtol=1e-5, atol=1e-5
  )


@pytest.mark.slow
def test_noise_gives_the_gauss_newton_matrix():
  """Over unit noise the second moment is exact: a sum over the outputs."""
  generator = np.random.default_rng(0)
  features = {
    'x': generator.normal(size=(1, 4)).astype(np.float32),
    'label': np.array([1]),
  }
  params = {'w': generator.normal(size=(4, 3)).astype(np.float32)}
  split = curvature_products.SplitLoss(
    lambda params, features: features['x'] @ params['w'],
    lambda outputs, features: (
      jax.nn.logsumexp(outputs, 1) - outputs[:, features['label'][0]]
    ),
  )
  loss = pseudo_gradients.loss(split)

  def gradient(noise):
    found = jax.grad(
      lambda p: loss(p, {'features': features, 'noise': noise[None]})[0]
    )(params)
    return found['w'].reshape(-1)

  rows = jnp.stack([gradient(noise) for noise in np.eye(3, dtype=np.float32)])
  logits = features['x'][0] @ params['w']
  p = jax.nn.softmax(logits)
  outputs = jnp.diag(p) - jnp.outer(p, p)
  x = features['x'][0]
  expected = np.kron(np.outer(x, x), outputs)
  np.testing.assert_allclose(rows.T @ rows, expected, atol=1e-5)


def test_noise_is_normal_and_seeded():
  split = curvature_products.SplitLoss(
    lambda params, features: features['x'], lambda outputs, features: outputs
  )
  features = {'x': np.zeros((5000, 2), np.float32)}
  one, same, other = (
    pseudo_gradients.with_noise(split, {}, features, seed)['noise']
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, same)
  assert not np.array_equal(one, other)
  # Five standard errors of a second moment of 5,000 normal numbers.
  np.testing.assert_allclose(one.T @ one / 5000, np.eye(2), atol=0.1)
  large = {'x': np.zeros((1, 2000), np.float32)}
  with pytest.raises(errors.InputError, match='2,000 outputs for an example'):
    pseudo_gradients.with_noise(split, {}, large, 0)


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
