"""Statistics of each weight's gradient against gradients that are formed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import loss_contract, parameter_selection
from influence_core.subspaces import factored_gradients, matrix_gradients
from tests.kit import marks, projection_cases

CASES = {case.name: case for case in projection_cases.hard_cases()}
# Every kind of site: products, batches, convolutions, lookups, a call, scans.
NAMES = [
  'weight_as_left_operand',
  'weight_with_batch_dimensions',
  'convolution_grouped',
  'embedding_of_repeated_ids',
  'checkpoint_on_function',
  'nested_scans',
]


def factored(case):
  return factored_gradients.FactoredGradients(
    case.per_example_loss,
    case.params,
    selected=parameter_selection.select_parameters(case.params),
    features=case.features,
  )


def per_example_gradients(case):
  """[num_examples, *shape] by path, by automatic differentiation alone."""
  selected = parameter_selection.select_parameters(case.params)

  def loss(selected, example):
    params = parameter_selection.replace_parameters(case.params, selected)
    one = jax.tree.map(lambda leaf: leaf[None], example)
    return case.per_example_loss(params, one)[0]

  gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
  return gradients(selected, case.features)


def random_directions(gradients):
  """U and V of each weight, of more rows and columns than there are few."""
  generator = np.random.default_rng(0)
  return {
    path: {
      'rows': generator.standard_normal((count, rows, 3)).astype(np.float32),
      'columns': generator.standard_normal((count, columns, 2)).astype('f4'),
    }
    for path, one in gradients.matrices.items()
    for count, rows, columns in [one.sizes]
  }


def statistics(gradients, path, gradient, own):
  _, num_rows, _ = gradients.matrices[path].sizes
  found = {
    'matrices': gradient.matrices(num_rows),
    'norms': matrix_gradients.squared_norms(gradient),
    'inside': matrix_gradients.coordinates(
      gradient, own['rows'], own['columns']
    ),
  }
  if gradient.numbers is None:
    found['moments'] = matrix_gradients.row_moments(gradient)
    found['products'] = matrix_gradients.row_moments(gradient, own['rows'])
  return found


def expected_statistics(matrices, own):
  moments = np.einsum('ebrc,ebsc->ebrs', matrices, matrices)
  inside = np.einsum(
    'ebrc,brk,bcl->ebkl', matrices, own['rows'], own['columns']
  )
  return {
    'matrices': matrices,
    'norms': np.square(matrices).sum(axis=(2, 3)),
    'inside': inside.reshape(*inside.shape[:2], -1),
    'moments': moments,
    'products': np.einsum('ebrs,bsk->ebrk', moments, own['rows']),
  }


# Compiled in more than a second each, but for one.
@pytest.mark.parametrize(
  'name', marks.slow_where(NAMES, {*NAMES} - {'weight_as_left_operand'})
)
def test_statistics_are_those_of_formed_gradients(name):
  case = CASES[name]
  gradients = factored(case)
  leaves = parameter_selection.all_parameters(case.params)
  directions = random_directions(gradients)
  statistic = functools.partial(statistics, gradients)
  losses, found = jax.jit(
    lambda leaves, features: gradients.of_each(
      leaves, features, statistic, directions
    )
  )(leaves, case.features)
  np.testing.assert_allclose(
    losses, case.per_example_loss(case.params, case.features), rtol=1e-5
  )
  exact = per_example_gradients(case)
  assert found.keys() == exact.keys()
  sizes = {
    key: max(
      (np.abs(own[key]).max() for own in found.values() if key in own),
      default=0,
    )
    for key in ('matrices', 'norms', 'inside', 'moments', 'products')
  }
  for path, one in gradients.matrices.items():
    arrays = exact[path]
    matrices = np.asarray(one.to_matrices(arrays), np.float64)
    back = one.from_matrices(jnp.float32(matrices), arrays.shape[1:])
    np.testing.assert_array_equal(back, arrays)
    expected = expected_statistics(matrices, directions[path])
    for key, value in found[path].items():
      # float32 sums in another order; where a gradient is zero by symmetry,
      # there is rounding of others.
      atol = 2e-5 * sizes[key]
      np.testing.assert_allclose(
        value, expected[key], atol=atol, err_msg=f'{path} {key}'
      )


@pytest.mark.slow
@pytest.mark.parametrize('name', ['embedding_of_repeated_ids', 'nested_scans'])
def test_sums_leave_out_what_does_not_count(name):
  case = CASES[name]
  gradients = factored(case)
  leaves = parameter_selection.all_parameters(case.params)
  directions = random_directions(gradients)
  statistic = functools.partial(statistics, gradients)

  def both(leaves, features, mask):
    _, each = gradients.of_each(leaves, features, statistic, directions)
    return each, gradients.total(
      leaves, features, statistic, directions, mask=mask
    )

  count = len(jax.tree.leaves(case.features)[0])
  mask = np.arange(count) % 3 != 1
  each, total = jax.jit(both)(leaves, case.features, np.float32(mask))
  for path, own in each.items():
    for key, value in own.items():
      # float32 sums in another order.
      np.testing.assert_allclose(
        total[path][key],
        value[mask].sum(axis=0),
        atol=1e-5 * count * np.abs(value).max(),
        err_msg=f'{path} {key}',
      )


def test_a_loss_per_token_has_statistics_of_each():
  generator = np.random.default_rng(0)
  x = generator.normal(size=(4, 5, 3)).astype(np.float32)
  w = generator.normal(size=(3, 2)).astype(np.float32)

  def loss(params, features):
    return jnp.square(features['x'] @ params['w']).sum(axis=-1)

  gradients = factored_gradients.FactoredGradients(
    loss, {'w': w}, selected={'w': w}, features={'x': x}
  )
  losses, found = gradients.of_each(
    {'w': w}, {'x': x}, lambda path, own, _: own.matrices(3), {}
  )
  assert losses.shape == (4, 5)
  expected = 2 * np.einsum('etr,etc->etrc', x, x @ w)
  np.testing.assert_allclose(found['w'][:, :, 0], expected, rtol=1e-5)


def test_a_table_that_is_also_multiplied():
  """Tied embeddings: two parts of one gradient, that may meet in a row."""
  generator = np.random.default_rng(0)
  params = {'table': generator.normal(size=(7, 4)).astype(np.float32)}
  features = {'ids': generator.integers(0, 7, (5, 6))}

  def loss(params, features):
    states = jnp.tanh(params['table'][features['ids']])
    logits = states @ params['table'].T
    return jax.nn.logsumexp(logits, axis=-1).sum(axis=1)

  gradients = factored_gradients.FactoredGradients(
    loss, params, selected=params, features=features
  )
  assert gradients.matrices['table'].sizes == (1, 7, 4)
  own = random_directions(gradients)

  def statistic(path, gradient, constants):
    assert gradient.left is not None
    assert gradient.numbers is not None
    return {
      'matrices': gradient.matrices(7),
      'norms': matrix_gradients.squared_norms(gradient),
      'inside': matrix_gradients.coordinates(
        gradient, constants['rows'], constants['columns']
      ),
    }

  _, found = jax.jit(
    lambda params, features: gradients.of_each(params, features, statistic, own)
  )(params, features)
  plain = jax.jit(jax.grad(lambda params, one: loss(params, one)[0]))
  matrices = np.stack(
    [
      plain(params, one)['table'][None]
      for one in loss_contract.single_examples(features)
    ]
  )
  expected = expected_statistics(matrices.astype(np.float64), own['table'])
  for key, value in found['table'].items():
    # float32 sums in another order.
    atol = 1e-5 * np.abs(expected[key]).max()
    np.testing.assert_allclose(value, expected[key], atol=atol, err_msg=key)


def test_experts_of_a_ragged_product_are_matrices_each():
  """Sorted tokens; JAX itself does not map the product over examples."""
  generator = np.random.default_rng(0)
  params = {
    'gate': generator.normal(size=(8, 4)).astype(np.float32),
    'w': generator.normal(size=(4, 8, 3)).astype(np.float32),
  }
  features = {'x': generator.normal(size=(5, 6, 8)).astype(np.float32)}

  def loss(params, features):
    x = features['x'].reshape(-1, 8)
    gates = jax.nn.softmax(x @ params['gate'])
    chosen = gates.argmax(axis=-1)
    order = chosen.argsort()
    sizes = jnp.bincount(chosen, length=4)
    outputs = jax.lax.ragged_dot(x[order], params['w'], sizes)
    outputs = outputs[order.argsort()] * gates.max(axis=-1, keepdims=True)
    return jnp.square(outputs).reshape(len(features['x']), -1).sum(axis=1)

  gradients = factored_gradients.FactoredGradients(
    loss, params, selected=params, features=features
  )
  assert gradients.matrices['w'].is_factored
  assert gradients.matrices['w'].sizes == (4, 8, 3)
  losses, found = jax.jit(
    lambda params, features: gradients.of_each(
      params, features, lambda path, own, _: own.matrices(8), {}
    )
  )(params, features)
  np.testing.assert_allclose(losses, loss(params, features), rtol=1e-5)
  plain = jax.jit(jax.grad(lambda params, one: loss(params, one)[0]))
  for number, one in enumerate(loss_contract.single_examples(features)):
    expected = plain(params, one)
    # float32 sums in another order.
    np.testing.assert_allclose(
      found['w'][number], expected['w'], rtol=1e-4, atol=1e-4
    )
    np.testing.assert_allclose(
      found['gate'][number, 0], expected['gate'], rtol=1e-4, atol=1e-4
    )
