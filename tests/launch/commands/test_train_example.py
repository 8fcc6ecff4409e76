"""Training of the examples: as little as there is, and interrupted."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest

from influence_core import errors
from launch.commands import reproduce
from launch.example_tasks import example, train_classifier, training
from launch.output.exit_status import ExitStatus
from tests.launch.commands.test_reproduce import Listed


def train_argv(workdir, *more):
  """Of a network on a few digits."""
  return [
    *('train-example', 'digits_cnn', '--workdir', str(workdir)),
    *('--size', 'mini', '--train_split', 'train[:20]', '--num_epochs', '1'),
    *more,
  ]


@pytest.mark.parametrize('num_epochs', [1, 2])
def test_few_steps_train(num_epochs):
  def loss(params, batch, key):
    del key
    return (batch['x'] @ params - 1) ** 2

  params = training.fit(
    np.zeros(2, np.float32),
    {'x': np.ones((4, 2), np.float32)},
    loss,
    training.Schedule(num_epochs, batch_size=4, learning_rate=0.1, seed=0),
  )
  # The last step is made, Adam's first is as long as the learning rate.
  np.testing.assert_allclose(params, 0.1, rtol=1e-3)


def test_no_epoch_is_refused(influence, tmp_path):
  line = influence(*train_argv(tmp_path, '--num_epochs', 0)).error_line
  assert 'num_epochs is 0, expected at least 1' in line
  with pytest.raises(errors.InputError, match='batch_size is 0'):
    training.Schedule(1, 0, 0.1, 0)


def test_what_an_example_needs_is_told(influence, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, 'sacrebleu', None)
  for name in ('seq2seq', 'train_translator'):
    module = f'launch.example_tasks.{name}'
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.delattr(module, raising=False)  # Of the package, from before.
  line = influence(
    *('train-example', 'seq2seq', '--workdir', tmp_path, '--data_dir', tmp_path)
  ).error_line
  assert "package sacrebleu; install 'influence-pipeline[examples]'" in line


@pytest.fixture(name='interrupt')
def fixture_interrupt(monkeypatch):
  """Makes the next accuracy end as Ctrl-C would, without ending the tests."""
  measured = train_classifier._accuracy

  def set_up():
    def once(*_):
      monkeypatch.setattr(train_classifier, '_accuracy', measured)
      raise KeyboardInterrupt

    monkeypatch.setattr(train_classifier, '_accuracy', once)

  def leave(status):
    raise SystemExit(status)

  monkeypatch.setattr(os, '_exit', leave)
  return set_up


@pytest.mark.slow
def test_metrics_are_kept_with_the_model(influence, interrupt, tmp_path):
  command = train_argv(tmp_path / 'w', '--json')
  interrupt()
  assert influence(*command).status == ExitStatus.INTERRUPTED
  again = influence(*command).json
  # What was trained is not trained again, only measured.
  assert not again['trained']
  assert influence(*command).json == again
  whole = influence(*train_argv(tmp_path / 'whole', '--json')).json
  assert whole['trained']
  for name in ('train_accuracy', 'test_accuracy'):
    assert again[name] == whole[name]


@pytest.mark.slow
def test_recipe_goes_on_after_measuring_was_interrupted(
  influence, interrupt, monkeypatch, tmp_path
):
  recipe = Listed((tuple(train_argv(tmp_path / 'w')),))
  monkeypatch.setitem(reproduce.RECIPES, 'digits', recipe)
  command = ['reproduce', 'digits', '--out', tmp_path]
  interrupt()
  assert influence(*command).status == ExitStatus.INTERRUPTED
  assert influence(*command).status == 0
  page = (tmp_path / 'RESULTS.md').read_text()
  (line,) = [x for x in page.splitlines() if x.startswith('{')]
  assert {'train_accuracy', 'test_accuracy'} <= json.loads(line).keys()


def test_parameters_of_others_are_not_touched(influence, tmp_path):
  kept = tmp_path / 'checkpoint' / 'mine'
  kept.parent.mkdir()
  kept.touch()
  line = influence(*train_argv(tmp_path)).error_line
  assert 'checkpoint is there, but no config.json' in line
  assert kept.exists()


def test_training_of_another_process_is_not_disturbed(influence, tmp_path):
  marker = tmp_path / 'training.json'
  holder = {'host': socket.gethostname(), 'process': os.getppid()}
  example.save_json(str(marker), holder)
  line = influence(*train_argv(tmp_path)).error_line
  assert f'process {os.getppid()} is training there; wait for it' in line
  with subprocess.Popen(['true']) as gone:
    gone.wait()
  for other in ({'process': gone.pid}, {'host': 'elsewhere'}):
    example.save_json(str(marker), holder | other)
    with example.begin_training(str(tmp_path)):
      pass
    assert not marker.exists()


@pytest.mark.slow
def test_leftovers_of_an_interrupted_training_are_replaced(
  influence, monkeypatch, tmp_path
):
  """Wrong labels and epochs are those of the model, whatever was before."""

  def stop(*_):
    raise errors.InputError('stopped')

  more = ['--flip_labels', 0.5, '--seed', 1, '--num_epochs', 6]
  with monkeypatch.context() as patch:
    patch.setattr(example, 'save_config', stop)
    assert influence(*train_argv(tmp_path / 'w', *more)).status != 0
  for workdir in ('w', 'clean'):
    assert influence(*train_argv(tmp_path / workdir)).status == 0
  assert not (tmp_path / 'w' / 'training.json').exists()
  flips = [tmp_path / x / 'label_flips.json' for x in ('w', 'clean')]
  assert flips[0].read_bytes() == flips[1].read_bytes()
  task = train_classifier.make_task(str(tmp_path / 'w'), epochs='all')
  clean = train_classifier.make_task(str(tmp_path / 'clean'), epochs='all')
  np.testing.assert_equal(task.load_parameters(), clean.load_parameters())


@pytest.mark.slow
def test_models_of_other_seeds_have_the_same_labels(influence, tmp_path):
  def labels_and_model(*flags):
    workdir = tmp_path / '_'.join(flags)
    done = influence(*train_argv(workdir, '--flip_labels', 0.5, *flags))
    assert done.status == 0, done.stderr
    task = train_classifier.make_task(str(workdir))
    weights = task.load_parameters()['params']['Dense_0']['kernel']
    return (workdir / 'label_flips.json').read_bytes(), weights

  first, seeded, other = (
    labels_and_model(*flags)
    for flags in (['--seed', '0'], ['--seed', '1'], ['--data_seed', '1'])
  )
  assert first[0] == seeded[0]
  assert first[0] != other[0]
  assert np.abs(first[1] - seeded[1]).max() > 0.01
