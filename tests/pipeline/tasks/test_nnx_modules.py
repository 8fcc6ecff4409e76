from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import parameter_arrays, parameter_selection
import pipeline
from pipeline.storage import fingerprints

NUM_EXAMPLES = 5


class Calls(nnx.Variable):
  """Counts calls."""


class Network(nnx.Module):
  def __init__(self, rngs: nnx.Rngs):
    self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(11)])
    self.norm = nnx.BatchNorm(3, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.calls = Calls(jnp.zeros((), jnp.int32))

  def __call__(self, x):
    self.calls[...] += 1
    for layer in self.layers:
      x = x + jnp.tanh(layer(x))
    return self.dropout(self.norm(x))


def loss(network, features):
  return jnp.square(network(features['x'])).sum(axis=1)


def load_network(mean=0.5):
  network = Network(nnx.Rngs(0))
  network.norm.mean[...] = jnp.full(3, mean)
  return network


def features():
  x = np.random.default_rng(0).normal(size=(NUM_EXAMPLES, 3))
  return {'x': x.astype(np.float32)}


@pytest.fixture(name='task')
def fixture_task(tmp_path):
  return pipeline.from_nnx(
    load_network,
    loss,
    name='network',
    corpus=pipeline.FileCorpus(str(tmp_path)),
    preprocess=dict,
  )


def test_losses_and_gradients_are_those_of_the_module(task):
  network = load_network()
  network.eval()
  expected = loss(network, features())
  params, keys = parameter_arrays.as_arrays(task.load_parameters())
  per_example_loss = keys.restoring(task.per_example_loss)
  for function in (per_example_loss, jax.jit(per_example_loss)):
    np.testing.assert_allclose(
      function(params, features()),
      expected,
      rtol=1e-6,  # Rounding.
    )
  gradients = nnx.grad(lambda module: loss(module, features()).sum())(network)
  selected = parameter_selection.select_parameters(params, task.parameter_paths)
  found = parameter_selection.batch_gradient(
    per_example_loss, params, selected, features()
  )
  expected = {
    f'params/{path}': leaf
    for path, leaf in parameter_selection.all_parameters(
      nnx.to_pure_dict(gradients)
    ).items()
  }
  assert found.keys() == expected.keys()
  for path, leaf in expected.items():
    np.testing.assert_allclose(found[path], leaf, rtol=1e-5, atol=1e-6)


def test_examples_do_not_depend_on_each_other(task):
  params = task.load_parameters()
  whole = task.per_example_loss(params, features())
  first = task.per_example_loss(params, {'x': features()['x'][:1]})
  np.testing.assert_allclose(whole[:1], first, rtol=1e-6)


def test_other_state_is_part_of_what_is_fingerprinted(task):
  def fingerprint(mean):
    other = pipeline.from_nnx(
      lambda: load_network(mean),
      loss,
      name='network',
      corpus=task.corpus,
      preprocess=dict,
    )
    params, _ = parameter_arrays.as_arrays(other.load_parameters())
    return fingerprints.of_arrays(params)

  assert fingerprint(0.5) == fingerprint(0.5) != fingerprint(0.25)


def test_fields_are_those_of_a_task(task):
  assert task.name == 'network'
  assert task.parameter_paths == ('^params/',)
  fields = {'name': 'x', 'corpus': task.corpus, 'preprocess': dict}
  last = pipeline.from_nnx(
    load_network, loss, parameter_paths=('layers/10',), **fields
  )
  selected = parameter_selection.select_parameters(
    last.load_parameters()['params'], last.parameter_paths
  )
  assert selected.keys() == {'layers/10/bias', 'layers/10/kernel'}


def test_other_functions_take_the_module_too(task):
  def outputs(network, features):
    return network(features['x'])

  other = pipeline.from_nnx(
    load_network,
    loss,
    name='network',
    corpus=task.corpus,
    preprocess=dict,
    measurement=loss,
    predict=lambda network, features: {'y': outputs(network, features)[:, 0]},
    split_loss=pipeline.SplitLoss(
      outputs, lambda values, features: jnp.square(values).sum(axis=1)
    ),
    retrain=lambda ids, seed: load_network(float(seed)),
  )
  params = other.load_parameters()
  expected = other.per_example_loss(params, features())
  for function in (other.measurement, other.split_loss.per_example_loss):
    np.testing.assert_array_equal(function(params, features()), expected)
  assert other.predict(params, features())['y'].shape == (NUM_EXAMPLES,)
  again = other.retrain(frozenset(), 2)
  np.testing.assert_array_equal(again['constants']['norm']['mean'], [2, 2, 2])


def test_the_module_is_made_once():
  made = []

  def load():
    made.append(load_network())
    return made[-1]

  task = pipeline.from_nnx(
    load, loss, name='x', corpus=pipeline.FileCorpus('x'), preprocess=dict
  )
  assert not made
  task.per_example_loss(task.load_parameters(), features())
  task.load_parameters()
  assert len(made) == 1
