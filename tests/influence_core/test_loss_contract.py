"""Losses that cannot be used are told in one line, with the user's place."""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, loss_contract, loss_tracing
from tests.kit import odd_losses

GENERATOR = np.random.default_rng(0)
FEATURES = {
  'x': GENERATOR.normal(size=(4, 3)).astype(np.float32),
  'y': GENERATOR.normal(size=4).astype(np.float32),
}
PARAMS = {'w': np.float32([1, -2, 0.5]), 'b': np.float32(0.1)}
IDS = ['zero', 'one', 'two', 'three']


def check(loss):
  """All that is checked, in the order in which tasks are."""
  named = loss_tracing.NamedLoss(loss)
  loss_contract.check_form(named, PARAMS, FEATURES)
  loss_contract.check_differentiable(named, PARAMS, ['b', 'w'], FEATURES)
  check_independent(named)


def check_independent(named, params=PARAMS):
  together = loss_contract.evaluate(named, params, FEATURES)
  loss_contract.check_independent(
    named, params, FEATURES, ids=IDS, together=together
  )


def places_of(loss):
  """Where a message may say that the error is."""
  lines, first = inspect.getsourcelines(loss)
  path = inspect.getsourcefile(loss)
  return {f'{path}:{first + number}' for number in range(len(lines))}


@pytest.mark.parametrize('name', odd_losses.WRONG)
def test_wrong_loss_is_one_line_with_its_place(name):
  loss, parts = odd_losses.WRONG[name]
  with pytest.raises(errors.InputError) as error:
    check(loss)
  line = str(error.value)
  assert all(part in line for part in parts)
  assert '\n' not in line
  assert len(line) < 1000
  assert set(re.findall(r'[^\s(]+\.py:\d+', line)) & places_of(loss)


@pytest.mark.parametrize('name', odd_losses.RIGHT)
def test_right_loss_passes(name):
  check(odd_losses.RIGHT[name])
  assert PARAMS.keys() == {'w', 'b'}
  assert FEATURES.keys() == {'x', 'y'}


def test_gradient_by_unused_parameters_is_zero():
  def loss(params, features):
    return odd_losses.plain({**params, 'b': 0.0}, features)

  loss = loss_tracing.NamedLoss(loss)
  loss_contract.check_differentiable(loss, PARAMS, ['b', 'w'], FEATURES)
  with pytest.raises(errors.InputError, match='is zero for every example'):
    loss_contract.check_differentiable(loss, PARAMS, ['b'], FEATURES)


def test_losses_in_low_precision_may_round():
  params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), PARAMS)

  def loss(params, features):
    rounding = 1e-2 * (len(features['y']) > 1)
    return odd_losses.plain(params, features) * (1 + rounding)

  check_independent(loss_tracing.NamedLoss(loss), params)
  with pytest.raises(errors.InputError, match='must not mix the examples'):
    check_independent(loss_tracing.NamedLoss(loss))


def test_loss_per_token_names_example_and_token():
  def loss(params, features):
    losses = odd_losses.plain(params, features)[:, None] * jnp.ones(6)
    mixed = jnp.zeros_like(losses).at[1, 4].set(len(losses))
    return losses + mixed[: len(losses)] if len(losses) > 1 else losses

  with pytest.raises(
    errors.InputError, match=r'the loss of example one at token 4 is .* must n'
  ):
    check_independent(loss_tracing.NamedLoss(loss))


def test_loss_that_is_not_finite_is_named():
  def loss(params, features):
    is_third = features['x'][:, 0] == FEATURES['x'][2, 0]
    return odd_losses.plain(params, features) * jnp.where(is_third, jnp.nan, 1)

  with pytest.raises(
    errors.InputError,
    match='the loss of example two is nan in a batch and nan alone, expected f',
  ):
    check_independent(loss_tracing.NamedLoss(loss))


def test_values_that_escape_are_told():
  kept = []

  def loss(params, features):
    kept.append(params['w'].sum())
    return odd_losses.plain(params, features) + kept[0]

  with pytest.raises(errors.InputError, match=r'UnexpectedTracerError: .*\.py'):
    check(loss)


def test_large_examples_are_evaluated_in_pairs(monkeypatch):
  """And a loss that mixes the examples of a batch still is found."""
  sizes = []

  def loss(params, features):
    sizes.append(len(features['y']))
    return odd_losses.plain(params, features)

  together = loss_contract.evaluate(
    loss_tracing.NamedLoss(loss), PARAMS, FEATURES
  )
  assert sizes == [4]
  monkeypatch.setattr(loss_contract, '_LARGEST_BYTES', 1)
  in_pairs = loss_contract.evaluate(
    loss_tracing.NamedLoss(loss), PARAMS, FEATURES
  )
  assert sizes == [4, 4, 2]
  np.testing.assert_allclose(
    in_pairs, together, loss_contract.FLOAT32_TOLERANCE
  )

  def mixing(params, features):
    losses = odd_losses.plain(params, features)
    return losses + losses.mean()

  with pytest.raises(errors.InputError, match='must not mix the examples'):
    check_independent(loss_tracing.NamedLoss(mixing))


def test_host_function_that_fails_is_told():
  def failing(x):
    raise ValueError('cannot do this one')

  def loss(params, features):
    losses = odd_losses.plain(params, features)
    return losses + jax.pure_callback(failing, losses, features['y'])

  loss_contract.check_form(loss_tracing.NamedLoss(loss), PARAMS, FEATURES)
  with pytest.raises(errors.InputError, match='ValueError: cannot do this one'):
    loss_contract.evaluate(loss_tracing.NamedLoss(loss), PARAMS, FEATURES)
