"""Examples that cannot be used are left out of a sample, counted and named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core.curvature import finite_examples
from influence_core.devices import memory as device_memory, multi_device
from pipeline.bases import curvature_sample, stored_basis
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def flags(workdir, numbers='plain', loss='plain'):
  return [
    *('--task', 'tests.kit.odd_tasks:make_task'),
    *('--task_arg', f'workdir={workdir}', '--task_arg', f'numbers={numbers}'),
    *('--task_arg', f'loss={loss}'),
  ]


COMMANDS = {
  'fit-basis': ['--projection_dim', 2, '--num_iterations', 3],
  'random-basis': ['--projection_dim', 4],
  'query-basis': [
    *('--query_split', 'test[-1:]', '--curvature', 'empirical_fisher'),
    *('--damping', 1),
  ],
}


@pytest.mark.slow
@pytest.mark.parametrize('command', COMMANDS)
@pytest.mark.parametrize(
  ('numbers', 'loss', 'count', 'reason'),
  [
    ('nan_start', 'plain', 15, 'non-finite loss or gradient'),
    ('bad_start', 'plain', 6, 'preprocess: ValueError: no such thing'),
    ('infinite_slope', 'root', 3, 'non-finite loss or gradient'),
  ],
)
def test_unusable_examples_are_told_or_fail_the_job(
  influence, workdir, tmp_path, command, numbers, loss, count, reason
):
  task = flags(workdir, numbers, loss)
  line = [command, *task, '--out', tmp_path, *COMMANDS[command]]
  failed = influence(*line)
  assert failed.status == 6
  assert f'{count} of 303 sampled examples were rejected' in failed.error_line
  assert f'({reason}' in failed.error_line
  assert not (tmp_path / 'basis.json').exists()
  made = influence(*line, '--max_rejected_fraction', 0.06, '--json')
  assert made.status == 0, made.stderr
  assert f'{count} sampled examples were left out of the basis, the first' in (
    made.stderr
  )
  report = stored_basis.load_record(str(tmp_path)).report
  assert report.sample_size == 303 - count
  assert len(report.rejected) == count
  [told] = set(report.rejected.values())
  assert told.startswith(reason)
  assert made.json['report']['rejected'] == report.rejected


def test_a_good_sample_is_not_talked_about(influence, workdir, tmp_path):
  line = ['fit-basis', *flags(workdir), '--out', tmp_path / 'b']
  made = influence(*line, *COMMANDS['fit-basis'], '--json')
  assert 'left out' not in made.stderr
  assert made.json['report']['rejected'] == {}


def test_second_sample_is_looked_at_too(influence, workdir, tmp_path):
  made = influence(
    *('fit-basis', *flags(workdir, 'nan_start'), '--out', tmp_path / 'b'),
    *(*COMMANDS['fit-basis'], '--sample_size', 150, '--check_sample'),
    *('--max_rejected_fraction', 0.2, '--json'),
  )
  assert made.status == 0, made.stderr
  # Three of the corpus are in neither sample.
  assert 12 <= len(made.json['report']['rejected']) <= 15


def test_fraction_is_checked(influence, workdir, tmp_path):
  for command, more in COMMANDS.items():
    found = influence(
      *(command, *flags(workdir), '--out', tmp_path / 'b', *more),
      *('--max_rejected_fraction', 2),
    )
    assert 'max_rejected_fraction is 2.0, expected 0 to 1' in found.error_line


def test_passes_look_for_bad_examples_once(workdir, monkeypatch):
  arguments = {'workdir': str(workdir), 'numbers': 'nan_start'}
  loaded = loaded_task.LoadedTask.load(
    TaskReference('tests.kit.odd_tasks:make_task', arguments)
  )
  samples = curvature_sample.CurvatureSamples(
    loaded, sample_size=303, seed=0, max_rejected_fraction=0.06
  )
  find, looked_at = samples._is_finite, []

  def noting(features):
    looked_at.append(multi_device.num_examples(features))
    return find(features)

  monkeypatch.setattr(samples, '_is_finite', noting)
  blocks = samples.blocks()
  first, again = (
    [batch for number in range(len(blocks)) for batch in blocks[number]]
    for _ in range(2)
  )
  assert sum(looked_at) == 303
  assert sum(map(multi_device.num_examples, again)) == 303 - 15
  jax.tree.map(np.testing.assert_array_equal, first, again)
  assert len(blocks.rejected) == 15


PARAMS = {'w': np.float32([1, 2]), 'b': np.float32(0)}


def loss(params, features):
  inside = features['x'] @ params['w'] + params['b']
  return jnp.sqrt(jnp.abs(inside))


@pytest.mark.parametrize('budget', [None, 30])
@pytest.mark.parametrize('count', [1, 3, 70, 130])
def test_bad_examples_are_found_in_any_batch(count, budget):
  """30 bytes have no room for a gradient: losses alone are looked at."""
  x = np.random.default_rng(0).normal(size=(count, 2)).astype(np.float32)
  expected = np.ones(count, bool)
  for place in {0, count // 2, count - 1}:
    x[place] = np.nan
    expected[place] = False
  if count > 5:
    x[5] = 0  # The slope of the root is infinite there.
    expected[5] = budget is not None
  find = finite_examples.FiniteExamples(
    loss, PARAMS, selected=PARAMS, memory_budget_bytes=budget
  )
  found = find({'x': x})
  np.testing.assert_array_equal(found, expected)


def test_parameters_over_several_devices_are_used_as_they_are(monkeypatch):
  monkeypatch.setattr(device_memory, 'default_budget_bytes', lambda: 8)
  x = np.float32([[1, 2], [np.nan, 1]])
  find = finite_examples.FiniteExamples(loss, PARAMS, selected=PARAMS)
  found = find({'x': x})
  np.testing.assert_array_equal(found, [True, False])
