"""The language model example, by bytes and by subwords."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from launch.example_tasks import (
  example,
  language_model,
  subwords,
  transformer,
)
from launch.example_tasks.options import ExampleOptions
from tests.kit import text_corpus

TASK = ['--task', 'launch.example_tasks.language_model:make_task', '--task_arg']


@pytest.fixture(name='data_dir', scope='module')
def fixture_data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('texts')
  text_corpus.prepare(path)
  return path


@pytest.mark.slow
@pytest.mark.parametrize(
  'size', ['bytes-mini', pytest.param('mini', marks=pytest.mark.scale)]
)
def test_learns_and_is_projected(influence, data_dir, tmp_path, size):
  config = dataclasses.replace(
    language_model.make_config(
      ExampleOptions(
        data_dir=str(data_dir),
        dataset='numbers',
        size=size,
        num_tokens=24,
        num_epochs=40,
      )
    ),
    width=32,
    num_layers=1,
  )
  assert config.feature == 'en'
  language_model.train(config, str(tmp_path))
  metrics = language_model.measure(config, str(tmp_path))
  # A word of ten, of 4.9 bytes with its space, is worth .68 bits a byte, and
  # any byte 8.
  assert 0.5 < metrics['bits_per_byte'] < 2
  if size == 'bytes-mini':
    test = example.read_split(config.corpus('test'))
    lengths = [len(raw['en']) for raw in test]
    # The end takes a place.
    assert metrics['cut_texts'] == np.mean(np.greater(lengths, 23)) > 0
  assert language_model.load_config(str(tmp_path)) == config
  task = [*TASK, f'workdir={tmp_path}']
  basis = ['--out', tmp_path / 'b', '--projection_dim', 4]
  more = ['--num_iterations', 8, '--sample_size', 64, '--json']
  assert influence('fit-basis', *task, *basis, *more).status == 0
  index = ['--basis', tmp_path / 'b', '--index', tmp_path / 'i', '--json']
  done = influence('project', *task, *index)
  assert done.json['num_examples'] == text_corpus.NUM_TRAIN


@pytest.mark.slow
def test_no_logit_knows_its_token():
  model = transformer.LanguageModel(20, 16, 1, 2)
  tokens = jnp.array([[3, 4, 5, 1, 0]])
  params = model.init(jax.random.key(0), tokens)
  logits = model.apply(params, tokens)
  later = model.apply(params, tokens.at[0, 2].set(9))
  np.testing.assert_array_equal(logits[:, :3], later[:, :3])
  assert not np.array_equal(logits[:, 3], later[:, 3])


def test_bytes_are_tokens():
  assert subwords.Bytes().token_texts('aéo', 6) == ['a', 'é', '', 'o', '<end>']
  assert subwords.Bytes().token_texts('aéo', 3) == ['a', 'é', '<end>']
  row = subwords.Bytes().row('aé', 6)
  assert row.tolist() == [99, 197, 171, subwords.END_ID, 0, 0]


def test_wrong_choices_are_told(influence, data_dir, tmp_path):
  command = ['train-example', 'language_model', '--workdir', tmp_path / 'w']
  command += ['--data_dir', data_dir, '--dataset', 'numbers']
  for flags, message in (
    (['--size', 'huge'], "size is 'huge', expected one of bytes-mini, mini"),
    (['--flip_labels', 0.1], 'this example has no labels'),
    (['--num_tokens', 0], 'num_tokens is 0, expected at least 1'),
  ):
    assert message in influence(*command, *flags).error_line
