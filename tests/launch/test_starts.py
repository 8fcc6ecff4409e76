"""The starts for models of one's own, typed as pipeline/README has them."""

import io
import re
import shlex
import sys
from typing import ClassVar

from flax import nnx
from flax.training import train_state
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import tensorflow_datasets as tfds

from influence_core import parameter_selection
from tests.kit import datasets, documentation

MODEL = """
import flax.linen as nn
import jax.numpy as jnp

class Decoder(nn.Module):
  @nn.compact
  def __call__(self, tokens):
    x = nn.Embed(256, 8)(tokens)
    count = jnp.arange(1, tokens.shape[1] + 1)[:, None]
    return nn.Dense(256)(jnp.tanh(nn.Dense(16)(x.cumsum(1) / count)))

def tokenize(text):
  return list(text.encode())
"""
NETWORK = """
from flax import nnx

class Cnn(nnx.Module):
  def __init__(self, rngs):
    self.conv = nnx.Conv(3, 4, (3, 3), strides=4, rngs=rngs)
    self.norm = nnx.BatchNorm(4, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)
    self.out = nnx.Linear(16, 2, rngs=rngs)

  def __call__(self, x):
    x = nnx.relu(self.norm(self.conv(x)))
    return self.out(self.dropout(x.reshape(len(x), -1)))
"""
WORDS = ['one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight']


@pytest.fixture(name='here')
def fixture_here(tmp_path, monkeypatch):
  """An empty directory to work in, with modules of its own."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, 'path', [str(tmp_path), *sys.path])
  yield tmp_path
  for name in (
    'my_model',
    'my_network',
    'texts_task',
    'photos_task',
    'tfds_task',
  ):
    sys.modules.pop(name, None)


def start(name):
  """(program, commands) of the start whose program has this name."""
  readme = documentation.text()
  [found] = re.findall(
    rf'```python\n(# {name}\.py.*?)```\n\n```\n(.*?)```', readme, re.DOTALL
  )
  return found


def type_in(influence, monkeypatch, name, directory):
  """Follows a start; gives the outcome of each command."""
  program, commands = start(name)
  (directory / f'{name}.py').write_text(program)
  outcomes = []
  for line in commands.splitlines():
    before, _, command = line.partition('influence ')
    if before:
      text = shlex.split(before)[1]
      monkeypatch.setattr('sys.stdin', io.StringIO(text))
    outcomes.append(influence(*shlex.split(command)))
    assert outcomes[-1].status == 0, outcomes[-1].stderr
    if 'fit-basis' in command:
      assert 'GO: the curvature inside' in outcomes[-1].stdout
  return outcomes


@pytest.mark.slow
def test_texts_in_parquet_with_weights_in_safetensors(
  here, influence, monkeypatch
):
  generator = np.random.default_rng(0)
  texts = [
    ' '.join(generator.choice(WORDS, generator.integers(2, 5)))
    for _ in range(60)
  ]
  pq.write_table(pa.table({'text': texts}), here / 'texts.parquet')
  (here / 'my_model.py').write_text(MODEL)
  import my_model  # type: ignore[import-not-found]

  params = my_model.Decoder().init(jax.random.key(0), jnp.zeros((1, 8), int))
  weights = {
    path.replace('/', '.'): np.asarray(leaf)
    for path, leaf in parameter_selection.all_parameters(params).items()
  }
  safetensors.numpy.save_file(weights, here / 'model.safetensors')
  program, _ = start('texts_task')
  lines = [x for x in program.splitlines() if x and not x.startswith('#')]
  assert len(lines) <= 25
  *_, found = type_in(influence, monkeypatch, 'texts_task', here)
  assert 'stdin__0' in found.stdout
  assert any(word in found.stdout for word in WORDS)


@pytest.mark.slow
def test_a_folder_of_images_with_an_nnx_network(here, influence, monkeypatch):
  generator = np.random.default_rng(0)
  for name in ('cat', 'dog'):
    (here / 'photos' / name).mkdir(parents=True)
    for number in range(20):
      pixels = generator.integers(0, 256, (8, 8, 3), np.uint8)
      path = here / 'photos' / name / f'{number}.png'
      Image.fromarray(pixels).save(path)
  (here / 'my_network.py').write_text(NETWORK)
  import my_network  # type: ignore[import-not-found]

  cnn = my_network.Cnn(rngs=nnx.Rngs(1))
  with ocp.CheckpointManager(here / 'checkpoints') as manager:
    for step in (1, 2):
      manager.save(step, args=ocp.args.StandardSave(nnx.state(cnn)))
  *_, found = type_in(influence, monkeypatch, 'photos_task', here)
  assert 'cat/1.png' in found.stdout
  assert 'predicted' in found.stdout


class DigitPictures(datasets.MadeUpDataset):
  """Made-up pictures."""

  FEATURES: ClassVar = {
    'image': tfds.features.Tensor(shape=(8, 8), dtype=np.uint8),
    'label': tfds.features.Scalar(dtype=np.int64),
  }

  def _split_generators(self, dl_manager):
    return {'train': self._generate_examples()}

  def _generate_examples(self):
    generator = np.random.default_rng(0)
    for key in range(40):
      pixels = generator.integers(0, 16, (8, 8), np.uint8)
      yield key, {'image': pixels, 'label': key % 10}


@pytest.mark.slow
def test_a_prepared_dataset_with_a_train_state(here, influence, monkeypatch):
  datasets.prepare(DigitPictures, here / 'D', 2)
  program, _ = start('tfds_task')
  (here / 'tfds_task.py').write_text(program)
  import tfds_task  # type: ignore[import-not-found]

  model = tfds_task.Model()
  state = train_state.TrainState.create(
    apply_fn=model.apply,
    tx=optax.adam(1e-3),
    **model.init(jax.random.key(0), jnp.zeros((1, 8, 8))),
  )
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(here / 'ckpt', state)
  [fitted] = type_in(influence, monkeypatch, 'tfds_task', here)
  assert 'Dense_1/kernel' in fitted.stdout


def test_the_names_of_readme_fit_what_it_says(here):
  """The table of names turns a linear layer of PyTorch around."""
  readme = documentation.text()
  [block] = re.findall(r'```python\n(load_arrays\(\n.*?)```', readme, re.DOTALL)
  arrays = {
    'h.10.fc.weight': np.arange(6.0).reshape(2, 3),
    'h.10.fc.bias': np.ones(2),
    'h.position_ids': np.arange(4),
  }
  safetensors.numpy.save_file(arrays, here / 'model.safetensors')
  like = {'layer_10': {'fc': {'kernel': np.zeros((3, 2)), 'bias': np.zeros(2)}}}
  from pipeline import load_arrays

  found = eval(block, {'load_arrays': load_arrays, 'like': like})
  np.testing.assert_array_equal(
    found['layer_10']['fc']['kernel'], arrays['h.10.fc.weight'].T
  )
