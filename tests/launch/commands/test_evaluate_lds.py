"""Linear datamodelling scores: by hand, and where influence must be right."""

import dataclasses
import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from influence_core import errors
from influence_core.scores import evaluation
from pipeline.evaluation import options, retrainings
from pipeline.tasks import loaded_task, queries
from pipeline.tasks.reference import TaskReference


def test_score_is_spearman_by_query():
  generator = np.random.default_rng(0)
  predicted, actual = generator.normal(size=(2, 30, 4))
  actual[:, 0] = np.exp(predicted[:, 0])  # Another scale, the same order.
  actual[:, 1] = -predicted[:, 1]
  actual[:, 2] = 1.0  # Never differs.
  found = evaluation.spearman_correlations(predicted, actual)
  expected = stats.spearmanr(predicted[:, 3], actual[:, 3]).statistic
  np.testing.assert_allclose(found, [1, -1, 0, expected], atol=1e-12)


def test_shapes_must_agree():
  for shape in ((3, 2), (1, 4)):
    with pytest.raises(errors.InputError, match='at least two values'):
      evaluation.spearman_correlations(np.zeros(shape), np.zeros((1, 4)))


def test_interval_is_that_of_the_mean():
  values = np.random.default_rng(0).normal(3, 2, size=400)
  low, high = evaluation.bootstrap_interval(values, num_samples=2000, seed=0)
  # Of a normal mean: 1.96 standard errors to each side, within a tenth.
  half = 1.96 * values.std() / np.sqrt(len(values))
  assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
  assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_parts_are_random_halves():
  design = options.Design(200, 0.5, seed=0)
  ids = [str(number) for number in range(100)]
  parts = retrainings.draw_parts(design, ids)
  assert all(len(part) == 50 for part in parts)
  counts = np.array([sum(x in part for part in parts) for x in ids])
  # Each is in half of 200 parts: five standard deviations of 7.1.
  assert np.abs(counts - 100).max() < 36
  assert parts == retrainings.draw_parts(design, ids)


@pytest.fixture(name='lds')
def fixture_lds(influence, task_flags, index, tmp_path):
  def run(*more, task=task_flags, indexes=(index,)):
    flags = [x for path in indexes for x in ('--index', path)]
    return influence(
      *('evaluate', 'lds', *task, *flags, '--query_split', 'test[:8]'),
      *('--out', tmp_path / 'lds', '--num_subsets', 30, *more),
    )

  return run


def test_influence_predicts_ridge_regression(
  lds, influence, task_flags, tmp_path
):
  """With all of the Hessian, and better than random directions do."""
  basis = tmp_path / 'random'
  flags = ['--projection_dim', 2, '--method', 'random']
  made = influence('random-basis', *task_flags, '--out', basis, *flags)
  assert made.status == 0
  other = ['--basis', basis, '--index', tmp_path / 'i']
  assert influence('project', *task_flags, *other).status == 0
  [alone] = lds('--json', indexes=[tmp_path / 'i']).json['scores']
  assert alone.keys() == {'method', 'lds', 'low', 'high'}
  more = ['--num_repeats', 2, '--baseline', 'embedding', '--baseline', 'loss']
  done = lds(*more, '--against', tmp_path / 'i', '--json')
  assert done.status == 0, done.stderr
  exact, random, embedding, loss = done.json['scores']
  assert random['lds'] == alone['lds']
  assert (embedding['method'], loss['method']) == ('embedding', 'loss')
  # What is left is of second order: half of 303 examples change a loss by
  # more than its linear part.
  assert exact['lds'] > 0.85
  assert exact['low'] < exact['lds'] < exact['high']
  for worse in (random, embedding, loss):
    assert worse['lds'] < exact['lds']
  # Another seed trains the same model.
  assert exact['ceiling'] == done.json['ceiling']['mean'] == pytest.approx(1)
  stored = pq.read_table(tmp_path / 'lds' / 'lds.parquet')
  own, other, *_ = stored['spearman'].to_numpy().reshape(4, -1)
  assert own.mean() == pytest.approx(exact['lds'])
  # Query by query, and not as the difference of two intervals.
  paired = evaluation.mean_interval(own - other, seed=0)
  names = ('difference', 'difference_low', 'difference_high')
  assert [exact[name] for name in names] == list(paired)
  assert [random[name] for name in names] == [0, 0, 0]
  assert done.json['against'] == str(tmp_path / 'i')
  assert json.loads((tmp_path / 'lds' / 'lds.json').read_text()) == done.json
  assert '<svg' in (tmp_path / 'lds' / 'lds.svg').read_text()


def test_only_missing_repeats_are_trained(workdir, tmp_path):
  """Of constant models, each by the size of its part and its seed."""
  trained = []

  def retrain(part, seed):
    trained.append((len(part), seed))
    bias = np.float32(len(part) + 10 * seed)
    return {'weights': np.zeros(5, np.float32), 'bias': bias}

  task = {'workdir': str(workdir)}
  loaded = loaded_task.LoadedTask.load(
    TaskReference('tests.kit.linear_task:make_task', task)
  )
  with_counts = dataclasses.replace(loaded.task, retrain=retrain)
  loaded = dataclasses.replace(loaded, task=with_counts)
  batch = queries.read(loaded, 'test[:3]')
  parts = [frozenset('a'), frozenset('bc'), frozenset('a')]

  def losses(num_repeats):
    retraining = options.Retraining(num_repeats, num_workers=1)
    return retrainings.losses(loaded, batch, parts, str(tmp_path), retraining)

  losses(1)
  assert trained == [(1, 0), (2, 0)]  # The third part is the first.
  found = losses(3)
  assert trained[2:] == [(1, 1), (1, 2), (2, 1), (2, 2)]
  biases = np.array([[1, 11, 21], [2, 12, 22], [1, 11, 21]])
  expected = 0.5 * (biases[..., None] - batch.features['y']) ** 2
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.slow
def test_trainings_are_kept(lds, tmp_path):
  assert lds().status == 0
  directory = tmp_path / 'lds' / 'retrainings'
  times = {x: os.stat(directory / x).st_mtime_ns for x in os.listdir(directory)}
  assert len(times) == 30
  assert lds('--num_workers', 1).status == 0
  again = {x: os.stat(directory / x).st_mtime_ns for x in os.listdir(directory)}
  assert again == times
  assert lds('--seed', 1).status == 0
  assert len(os.listdir(directory)) == 60


@pytest.mark.slow
def test_other_queries_of_kept_trainings(lds, tmp_path):
  directory = tmp_path / 'lds' / 'retrainings'

  def kept():
    return {x: (directory / x).read_bytes() for x in os.listdir(directory)}

  few = lds('--query_split', 'test[:3]', '--json').json
  first = kept()
  # Trained again for more queries, whose losses join the others.
  lds('--query_split', 'test[2:6]')
  both = kept()
  assert both.keys() == first.keys()
  for name, content in both.items():
    assert len(json.loads(content)['content']) == 6, name
  # Not trained again for any of them.
  assert lds('--query_split', 'test[:3]', '--json').json == few
  lds('--query_split', 'test[1:5]')
  assert kept() == both


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--fraction', 1], 'fraction is 1.0, expected more than 0'),
    (['--num_subsets', 1], 'num_subsets is 1, expected at least 2'),
    (['--num_repeats', 0], 'num_repeats is 0'),
    (['--num_workers', 0], 'num_workers is 0'),
    (['--baseline', 'bm25'], 'have no words, expected texts'),
    (['--baseline', 'nothing'], "invalid choice: 'nothing'"),
    (['--against', '/nowhere'], '/nowhere'),
    (['--out', '/proc/x'], 'cannot write to /proc/x'),
  ],
)
def test_mistakes_are_told(lds, flags, message):
  assert message in lds(*flags).error_line


@pytest.mark.parametrize(
  ('fault', 'messages'),
  [
    ('no_retrain', ['task linear has no retrain']),
    (
      'failing_retrain',
      ['retrain of task linear failed (IndexError: ', 'linear_task.py:'],
    ),
    (
      'other_retrain',
      ["of what retrain of task linear gave failed (KeyError: 'bias', "],
    ),
  ],
)
def test_faulty_retrain_is_told(lds, task_flags, fault, messages):
  line = lds(task=[*task_flags, '--task_arg', f'fault={fault}']).error_line
  assert all(message in line for message in messages)
