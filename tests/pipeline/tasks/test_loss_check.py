"""Losses and parameters that cannot be used are told before work starts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_arrays
from influence_core.curvature import products
from pipeline.index import reader as index_reader
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference
from tests.kit import linear_task


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
    ('stopped', 'is zero for every example: the loss does not depend on them'),
    (
      'once_differentiable',
      'the loss has no product with this curvature (ValueError: Pure callbacks',
    ),
  ],
)
def test_bad_loss(influence, workdir, tmp_path, loss, message):
  found = influence(
    'fit-basis', *flags(workdir, 'loss', loss), '--out', tmp_path / 'b', *SMALL
  )
  assert message in found.error_line
  assert 'tests/kit/odd_tasks.py:' in found.error_line
  assert not (tmp_path / 'b' / 'basis.json').exists()


@pytest.mark.parametrize(
  ('split', 'message'),
  [
    (
      'failing',
      "split_loss failed on a few examples (KeyError: 'absent', ",
    ),
    ('another', 'they must be the same'),
  ],
)
@pytest.mark.parametrize('command', ['fit-basis', 'query-basis'])
def test_bad_split_loss(influence, workdir, tmp_path, command, split, message):
  more = {
    'fit-basis': SMALL,
    'query-basis': ['--query_split', 'test[:1]', '--method', 'ekfac'],
  }[command]
  found = influence(
    *(command, *flags(workdir, 'split', split), '--out', tmp_path / 'b'),
    *('--curvature', 'gauss_newton', *more),
  )
  assert message in found.error_line
  assert not (tmp_path / 'b' / 'basis.json').exists()


def load(workdir):
  return loaded_task.LoadedTask.load(
    TaskReference('tests.kit.odd_tasks:make_task', {'workdir': str(workdir)})
  )


def test_the_example_whose_split_loss_differs_is_named(workdir):
  loaded = load(workdir)
  losses = products.SplitLoss(
    linear_task.outputs,
    lambda outputs, features: (
      linear_task.output_loss(outputs, features)
      + (features['y'] == loaded.checked_features['y'][2])
    ),
  )
  task = dataclasses.replace(loaded.task, split_loss=losses)
  with pytest.raises(errors.InputError, match=r'the split_loss of .*__2 is '):
    dataclasses.replace(loaded, task=task).check_split_loss()


def test_measurement_is_called_by_its_name(workdir):
  loaded = load(workdir)
  task = dataclasses.replace(loaded.task, measurement=lambda p, f: f['absent'])
  asked = dataclasses.replace(loaded, task=task).measuring()
  with pytest.raises(errors.InputError, match='linear: measurement failed on'):
    asked.check_loss()


@pytest.mark.slow
def test_loss_of_one_derivative_can_be_used_by_it(influence, workdir, tmp_path):
  fitted = influence(
    *('fit-basis', *flags(workdir, 'loss', 'once_differentiable')),
    *('--out', tmp_path / 'b', *SMALL, '--curvature', 'empirical_fisher'),
  )
  assert fitted.status == 0, fitted.stderr


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


@pytest.mark.parametrize(
  ('params', 'message'),
  [
    (None, 'are a NoneType without any array'),
    ({'layers': []}, 'are a dict without any array'),
    (
      {'a': {'b': np.ones(2)}, 'a/b': np.ones(3)},
      "two parameters have the path 'a/b'",
    ),
    (
      {'a': np.ma.masked_array(np.ones(2), [True, False])},
      "'a' is a MaskedArray, expected an array of numbers",
    ),
    (lambda: {'a': np.ones(2)}, 'is a function, expected an array'),
  ],
)
def test_parameters_that_are_none(params, message):
  with pytest.raises(errors.InputError, match=message):
    parameter_arrays.as_arrays(params)


def test_bytes_in_the_order_of_other_machines():
  found, _ = parameter_arrays.as_arrays({'a': np.array([1, 2], '>f4')})
  assert found['a'].dtype.isnative
  np.testing.assert_array_equal(found['a'], [1, 2])


@pytest.mark.slow
@pytest.mark.parametrize('parameters', ['without_numbers', 'bfloat16'])
def test_unusual_parameters(influence, workdir, tmp_path, parameters):
  task = flags(workdir, 'parameters', parameters)
  fitted = influence('fit-basis', *task, '--out', tmp_path / 'b', *SMALL)
  assert fitted.status == 0, fitted.stderr
  made = influence(
    *('project', *task, '--basis', tmp_path / 'b', '--index', tmp_path / 'i')
  )
  assert made.status == 0, made.stderr


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
