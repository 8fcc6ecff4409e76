"""The translation example: trained, projected and searched like any task."""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors
from launch.example_tasks import (
  corrupted_pairs,
  example,
  subwords,
  train_translator,
  training,
  transformer,
  translation,
)
from launch.example_tasks.options import ExampleOptions
from pipeline.tasks import checkpoints
from tests.kit import text_corpus

TASK = ['--task', 'launch.example_tasks.seq2seq:make_task', '--task_arg']


@pytest.fixture(name='trained', scope='module')
def fixture_trained(tmp_path_factory):
  """A work directory, its configuration and what training has told."""
  path = tmp_path_factory.mktemp('translation')
  text_corpus.prepare(path / 'data')
  config = dataclasses.replace(
    translation.make_config(
      ExampleOptions(
        data_dir=str(path / 'data'), dataset='numbers', num_epochs=100
      )
    ),
    vocabulary_size=400,
    num_tokens=8,
    width=32,
    num_layers=1,
    dropout_rate=0.0,
  )
  train_translator.train(config, str(path))
  return path, config, train_translator.measure(config, str(path))


@pytest.mark.slow
def test_translates_what_it_has_not_seen(trained):
  path, config, metrics = trained
  # Words at random score about 1.
  assert metrics['bleu'] > 80
  assert translation.load_config(str(path)) == config
  epochs = sorted(x.name for x in (path / 'epochs').iterdir())
  assert epochs == ['001', '034', '067', '100']
  last = checkpoints.load_arrays(training.epoch_path(str(path), 100))
  final = checkpoints.load_arrays(str(path / 'checkpoint'))
  jax.tree.map(np.testing.assert_array_equal, last, final)


@pytest.mark.slow
def test_whole_way(trained, influence, tmp_path):
  path, _, _ = trained
  task = [*TASK, f'workdir={path}']
  basis = ['--out', tmp_path / 'b', '--projection_dim', 4]
  more = ['--num_iterations', 8, '--sample_size', 64, '--json']
  assert influence('fit-basis', *task, *basis, *more).status == 0
  index = ['--basis', tmp_path / 'b', '--index', tmp_path / 'i', '--json']
  done = influence('project', *task, *index)
  assert done.json['num_examples'] == text_corpus.NUM_TRAIN
  query = ['--index', tmp_path / 'i', '--query_split', 'test[:2]', '--k', 3]
  found = influence('topk', *task, *query, '--json').json['results']
  assert {'source', 'target'} <= found[0].keys()
  stale = influence(
    'project', *task, '--task_arg', 'loss_reduction=mean', *index
  )
  assert 'other loss reduction (sum, expected mean)' in stale.error_line


def test_loss_is_sum_or_mean_over_real_tokens():
  logits = jnp.zeros((1, 4, 5))
  target = jnp.array([[3, 2, subwords.END_ID, transformer.PAD_ID]])
  features = {'target': target}
  total = translation.output_losses(logits, features, 'sum').sum(1)
  np.testing.assert_allclose(total, 3 * np.log(5), rtol=1e-6)
  mean = translation.output_losses(logits, features, 'mean').sum(1)
  np.testing.assert_allclose(mean, np.log(5), rtol=1e-6)
  with pytest.raises(errors.InputError, match='expected sum or mean'):
    translation.output_losses(logits, features, 'max')


@pytest.mark.slow
def test_padding_changes_nothing():
  """Nor does what comes after the place of a logit."""
  model = transformer.EncoderDecoder(20, 16, 1, 2)
  source = jnp.array([[3, 4, 1, 0, 0]])
  target = jnp.array([[5, 6, 1, 0, 0]])
  params = model.init(jax.random.key(0), source, target)
  logits = model.apply(params, source, target)
  later = model.apply(params, source, target.at[0, 2].set(9))
  np.testing.assert_array_equal(logits[:, :3], later[:, :3])
  longer = jax.tree.map(
    lambda x: jnp.concatenate([x, x[-2:]]) if x.shape == (5, 16) else x, params
  )
  padded = [jnp.pad(x, ((0, 0), (0, 2))) for x in (source, target)]
  np.testing.assert_allclose(
    model.apply(longer, *padded)[:, :3], logits[:, :3], atol=1e-5
  )


def test_any_text_comes_back():
  vocabulary = subwords.Vocabulary.train(['ein Haus', 'a house'], 300)
  for text in ('ein Haus', 'Äh? 東京 🙂', ''):
    assert vocabulary.text(vocabulary.row(text, 64)) == text
    *tokens, end = vocabulary.token_texts(text, 64)
    assert (''.join(tokens), end) == (text, '<end>')
  assert len(vocabulary.token_texts('a house ' * 10, 8)) == 8
  cut = vocabulary.row('a house ' * 10, 8)
  assert cut[-1] == subwords.END_ID


def test_wrong_choices_are_told(influence, tmp_path):
  command = ['train-example', 'seq2seq', '--workdir', tmp_path / 'w']
  command += ['--data_dir', tmp_path]
  for flags, message in (
    (['--size', 'huge'], "size is 'huge', expected one of mini, small, base"),
    (['--flip_labels', 0.1], 'this example has no labels'),
    (['--corrupt_pairs', 1], 'corrupt_pairs is 1.0, expected a fraction'),
    ([], 'no prepared dataset multi30k'),
  ):
    assert message in influence(*command, *flags).error_line


def test_languages_by_name():
  assert translation._languages('multi30k') == ('de', 'en')
  assert translation._languages('wmt17_translate/fi-en:1.0.0') == ('fi', 'en')


def test_corrupted_pairs_by_kind():
  pairs = [corrupted_pairs.Pair(f'ein {n} x', f'a {n} b c') for n in range(50)]
  ids = [f't__{n}' for n in range(50)]
  found = corrupted_pairs.corrupt(ids, pairs, fraction=0.4, seed=0)
  assert len(found) == 20
  by_kind = {kind: [] for kind in get_args(corrupted_pairs.Kind)}
  for example_id, pair in found.items():
    original = pairs[ids.index(example_id)]
    by_kind[pair.kind].append((original, pair))
  assert {len(some) for some in by_kind.values()} == {5}
  for original, pair in by_kind['wrong_pair']:
    assert pair.source == original.source
    assert pair.target != original.target
    assert any(pair.target == other.target for other in pairs)
  for original, pair in by_kind['wrong_language']:
    assert pair[1:] == (original.target, original.source)
  for original, pair in by_kind['copy']:
    assert pair[1:] == (original.source, original.source)
  for original, pair in by_kind['truncated']:
    assert pair[1:] == (original.source, original.target[:-4])
  assert found == corrupted_pairs.corrupt(ids, pairs, fraction=0.4, seed=0)
  assert found != corrupted_pairs.corrupt(ids, pairs, fraction=0.4, seed=1)


@pytest.mark.slow
def test_corrupted_pairs_are_what_is_trained_on(tmp_path, influence, trained):
  """They are in the index as they were given, and known by their kind."""
  _, config, _ = trained
  schedule = dataclasses.replace(config.schedule, num_epochs=40)
  config = dataclasses.replace(config, corrupt_pairs=0.1, schedule=schedule)
  train_translator.train(config, str(tmp_path))
  task = translation.make_task(str(tmp_path))
  corruptions = translation.load_corruptions(str(tmp_path))
  assert len(corruptions) == round(0.1 * text_corpus.NUM_TRAIN)
  raw = list(example.read_split(task.corpus))
  columns = [task.row_columns(x) for x in raw]
  kinds = [row['corruption'] for row in columns]
  assert kinds.count('copy') == len(corruptions) // 4
  assert kinds.count('none') == len(raw) - len(corruptions)
  copy = kinds.index('copy')
  assert columns[copy]['source'] == columns[copy]['target']
  features = task.preprocess(raw[copy])
  np.testing.assert_array_equal(features['source'], features['target'])
  command = [*TASK, f'workdir={tmp_path}']
  basis = ['--out', tmp_path / 'b', '--projection_dim', 8]
  more = ['--method', 'random', '--seed', 0]
  assert influence('random-basis', *command, *basis, *more).status == 0
  index = ['--basis', tmp_path / 'b', '--index', tmp_path / 'i']
  assert influence('project', *command, *index).status == 0
  bad = ['--bad', "corruption <> 'none'", '--json']
  done = influence('evaluate', 'detection', *index[2:], *bad)
  assert done.json['num_bad'] == len(corruptions)
  scores = {row['score']: row['auc'] for row in done.json['scores']}
  # Three standard deviations, of 60 bad among 600, above chance.
  assert scores['self_influence'] > 0.62
