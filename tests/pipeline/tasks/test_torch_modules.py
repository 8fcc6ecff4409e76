"""Modules of PyTorch as tasks, against PyTorch itself.

They need the extra `torch`, which is as large as everything else together, so
that they are skipped where it is not installed.
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors, parameter_selection
from influence_core.subspaces import factored_gradients
import pipeline

NUM_EXAMPLES = 5


def needs_torch():
  pytest.importorskip('torchax', reason='the extra torch is not installed')
  return pytest.importorskip('torch')


def network():
  """Convolution, norms, a recurrent layer, and a weight under two names."""
  torch = needs_torch()

  class Network(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.convolution = torch.nn.Conv2d(1, 3, 3)
      self.norm = torch.nn.BatchNorm2d(3)
      self.lstm = torch.nn.LSTM(6, 5, batch_first=True)
      self.first = torch.nn.Linear(5, 5)
      self.second = torch.nn.Linear(5, 5)
      self.second.weight = self.first.weight
      self.dropout = torch.nn.Dropout(0.5)

    def forward(self, x):
      rows = torch.relu(self.norm(self.convolution(x))).mean(1)
      found, _ = self.lstm(rows)
      return self.second(torch.tanh(self.first(self.dropout(found[:, -1]))))

  torch.manual_seed(0)
  made = Network()
  made.norm.running_mean[:] = 0.1
  return made


def loss(module, features):
  return jnp.square(module(features['x']) - features['y']).sum(axis=1)


def features():
  generator = np.random.default_rng(0)
  return {
    'x': generator.normal(size=(NUM_EXAMPLES, 1, 6, 8)).astype(np.float32),
    'y': generator.normal(size=(NUM_EXAMPLES, 5)).astype(np.float32),
  }


def task_of(module, path: str, **functions) -> pipeline.Task:
  return pipeline.from_torch(
    module,
    loss,
    name='network',
    corpus=pipeline.FileCorpus(path),
    preprocess=lambda raw: {
      name: np.array(raw[name], np.float32) for name in ('x', 'y')
    },
    **functions,
  )


def make_task(path: str) -> pipeline.Task:
  return task_of(
    network,
    path,
    predict=lambda module, features: {
      'largest': module(features['x']).argmax(axis=1)
    },
  )


def test_losses_and_gradients_are_those_of_torch(tmp_path):
  torch = needs_torch()
  task = make_task(str(tmp_path))
  module = network().eval()
  given = features()
  found = module(torch.tensor(given['x']))
  expected = (found - torch.tensor(given['y'])).square().sum(1)
  params = task.load_parameters()
  for function in (task.per_example_loss, jax.jit(task.per_example_loss)):
    # float32 sums in another order.
    np.testing.assert_allclose(
      function(params, given), expected.detach().numpy(), rtol=1e-5
    )
  expected.sum().backward()
  selected = parameter_selection.select_parameters(params, task.parameter_paths)
  gradients = parameter_selection.batch_gradient(
    task.per_example_loss, params, selected, given
  )
  theirs = dict(module.named_parameters())
  # The weight under two names is there once.
  assert 'second.weight' not in theirs
  assert {path.replace('/', '.') for path in selected} == {
    f'params.{name}' for name in theirs
  }
  for path, gradient in gradients.items():
    wanted = theirs[path.removeprefix('params/').replace('/', '.')].grad.numpy()
    np.testing.assert_allclose(
      gradient, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max()
    )
  largest = task.predict(params, given)['largest']
  np.testing.assert_array_equal(largest, found.argmax(1).numpy())


def test_its_products_are_seen(tmp_path):
  """So that gradients need not be formed."""
  needs_torch()
  task = make_task(str(tmp_path))
  params = task.load_parameters()
  gradients = factored_gradients.FactoredGradients(
    task.per_example_loss,
    params,
    selected=parameter_selection.select_parameters(params, ('^params/',)),
    features=features(),
  )
  factored = {p for p, own in gradients.matrices.items() if own.is_factored}
  assert factored >= {'params/convolution/weight', 'params/first/weight'}


@pytest.mark.slow
def test_whole_way(influence, tmp_path):
  needs_torch()
  given = features()
  lines = [
    json.dumps({'x': x.tolist(), 'y': y.tolist()})
    for x, y in zip(given['x'], given['y'], strict=True)
  ]
  (tmp_path / 'rows.jsonl').write_text('\n'.join(lines * 8))
  task = [
    *('--task', f'{__name__}:make_task'),
    *('--task_arg', f'path={tmp_path / "rows.jsonl"}'),
  ]
  index = ['--index', tmp_path / 'i']
  for command in (
    ['fit-basis', *task, '--out', tmp_path / 'b'],
    ['project', *task, '--basis', tmp_path / 'b', *index],
  ):
    done = influence(*command)
    assert done.status == 0, done.stderr
  asked = ['topk', *index, '--query_split', 'train[:5]', '--k', 8, '--json']
  found = influence(*asked)
  assert found.status == 0, found.stderr
  # Each row is there eight times, and finds itself first by a cosine.
  found = influence(*asked, '--normalization', 'cosine').json['results']
  numbers = {
    (row['query_id'], int(row['id'].rpartition('__')[2]) % NUM_EXAMPLES)
    for row in found
    if row['kind'] == 'proponent'
  }
  assert len(numbers) == NUM_EXAMPLES


def test_what_depends_on_values_is_told(influence, tmp_path):
  needs_torch()
  (tmp_path / 'rows.jsonl').write_text('{"x": [1.0], "y": [1.0]}')
  path = f'path={tmp_path / "rows.jsonl"}'
  task = ['--task', f'{__name__}:make_branching_task', '--task_arg', path]
  done = influence('fit-basis', *task, '--out', tmp_path / 'b')
  assert 'per_example_loss' in done.error_line
  assert 'Abstract tracer value' in done.error_line


def make_branching_task(path: str) -> pipeline.Task:
  """A network with a branch that only PyTorch can take."""
  torch = needs_torch()

  class Branching(torch.nn.Module):
    def __init__(self):
      super().__init__()
      self.linear = torch.nn.Linear(1, 1)

    def forward(self, x):
      return self.linear(x) if x.sum() > 0 else x

  return task_of(Branching, path)


def test_without_torch_the_extra_is_named(monkeypatch):
  monkeypatch.setitem(sys.modules, 'torchax', None)
  with pytest.raises(errors.InputError, match=r'influence-pipeline\[torch\]'):
    pipeline.from_torch(lambda: None, loss)
