import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_selection

PARAMS = {
  'params': {
    'Dense_1': {'kernel': jnp.ones((2, 3)), 'bias': jnp.zeros(3)},
    'Dense_0': {'kernel': jnp.ones((4, 2))},
    'steps': jnp.array(3),
    'unused': jnp.zeros((0, 3)),
  }
}


def test_selects_floating_point_leaves_by_path():
  selected = parameter_selection.select_parameters(PARAMS)
  assert list(selected) == [
    'params/Dense_0/kernel',
    'params/Dense_1/bias',
    'params/Dense_1/kernel',
  ]
  assert parameter_selection.num_parameters(selected) == 17
  kernels = parameter_selection.select_parameters(PARAMS, ['Dense_1/kernel$'])
  assert list(kernels) == ['params/Dense_1/kernel']


def test_replaces_only_what_is_given():
  changed = parameter_selection.replace_parameters(
    PARAMS, {'params/Dense_1/bias': jnp.full(3, 7.0)}
  )
  np.testing.assert_array_equal(changed['params']['Dense_1']['bias'], 7)
  np.testing.assert_array_equal(changed['params']['Dense_1']['kernel'], 1)
  assert changed['params']['steps'] == 3


@pytest.mark.parametrize(
  ('patterns', 'message'),
  [
    (['Conv'], 'selects no floating-point parameter; the model has params/'),
    (['steps'], 'selects no floating-point parameter'),
    (['('], 'not a regular expression'),
  ],
)
def test_useless_patterns_are_refused(patterns, message):
  with pytest.raises(errors.InputError, match=message):
    parameter_selection.select_parameters(PARAMS, patterns)
