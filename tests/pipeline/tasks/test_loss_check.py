"""Losses and parameters that cannot be used are told before work starts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_arrays
from pipeline.index import reader as index_reader


def flags(workdir, name, value):
  return [
    *('--task', 'tests.kit.odd_tasks:make_task'),
    *('--task_arg', f'workdir={workdir}', '--task_arg', f'{name}={value}'),
  ]


@pytest.mark.parametrize(
  ('loss', 'message'),
  [
    (
      'host_only',
      'per_example_loss cannot be traced (ConcretizationTypeError: Abstract',
    ),
    ('mutating', 'per_example_loss cannot be traced (TraceContextError: '),
    ('mutating', 'nnx.merge inside'),
    (
      'tokens',
      'returned shape (4, 7), expected (4,), one loss per example; sum',
    ),
  ],
)
def test_bad_loss(influence, workdir, tmp_path, loss, message):
  found = influence(
    'fit-basis', *flags(workdir, 'loss', loss), '--out', tmp_path / 'b'
  )
  assert message in found.error_line
  assert not (tmp_path / 'b').exists()


SMALL = ['--projection_dim', 6, '--num_iterations', 6]


def test_random_keys_and_numbers_beside_the_weights(
  influence, workdir, tmp_path, index
):
  task = flags(workdir, 'parameters', 'dataclass')
  fitted = influence(
    *('fit-basis', *task, '--out', tmp_path / 'b', *SMALL, '--json')
  )
  assert fitted.status == 0, fitted.stderr
  assert fitted.json['selected'] == {'weights': 5, 'bias': 1}
  made = influence(
    *('project', *task, '--basis', tmp_path / 'b', '--index', tmp_path / 'i')
  )
  assert made.status == 0, made.stderr
  found, expected = (
    index_reader.Index(str(path)).rows()['squared_gradient_norm']
    for path in (tmp_path / 'i', index)
  )
  np.testing.assert_array_equal(found, expected)


def test_other_leaves_are_named(influence, workdir, tmp_path):
  found = influence(
    'fit-basis', *flags(workdir, 'parameters', 'text'), '--out', tmp_path / 'b'
  )
  assert (
    "the parameter 'activation' is a str, expected an array of numbers"
    in (found.error_line)
  )


def test_keys_are_as_they_were_inside_the_loss():
  params = {'w': jnp.ones(2), 'key': jax.random.key(5), 'rate': 0.5, 'n': 3}
  arrays, keys = parameter_arrays.as_arrays(params)
  assert arrays['w'] is params['w']
  assert (arrays['rate'].dtype, arrays['n'].dtype) == (np.float32, np.int32)

  def loss(params, features):
    return features * jax.random.uniform(params['key']) * params['rate']

  found = jax.jit(keys.restoring(loss))(arrays, 2.0)
  # Compiled and not: float32 may round in another place.
  np.testing.assert_allclose(found, loss(params, 2.0), rtol=1e-6)
  # Of other parameters, such as those of another training, keys are taken.
  np.testing.assert_allclose(
    jax.jit(keys.restoring(loss))(params, 2.0), found, rtol=1e-6
  )


def test_trees_of_arrays_are_left_alone():
  def loss(params, features):
    return features

  params = {'a': np.ones(2), 'b': jnp.ones((2, 2))}
  found, keys = parameter_arrays.as_arrays(params)
  assert found['a'] is params['a']
  assert found['b'] is params['b']
  assert keys.restoring(loss) is loss


def test_arrays_of_objects_are_named():
  with pytest.raises(errors.InputError, match='is an array of object'):
    parameter_arrays.as_arrays({'a': {'b': np.array([{}])}})
