"""TracIn as a task: the sum over checkpoints, by closed form."""

import numpy as np
import pytest

from influence_core import errors
from pipeline.index import reader as index_reader
from pipeline.tasks import checkpoint_sum, loaded_task
from pipeline.tasks.reference import TaskReference
from tests.kit import linear_task

SIZES = {'early': 0.3, 'late': 0.1}


def parameters(name):
  number = float(list(SIZES).index(name))
  return {
    'bias': np.float32(number),
    'weights': np.arange(5, dtype=np.float32) - number,
  }


def make_task(workdir):
  task = linear_task.make_task(workdir)
  load = {name: lambda name=name: parameters(name) for name in SIZES}
  return checkpoint_sum.sum_checkpoints(task, load, SIZES)


@pytest.fixture(name='tracin')
def fixture_tracin(workdir):
  """Sum over checkpoints of step size times inner products of gradients."""
  total = 0
  for name, size in SIZES.items():
    train, queries = (
      linear_task.closed_form_gradients(count, seed, parameters(name))
      for count, seed in ((linear_task.NUM_TRAIN, 0), (linear_task.NUM_TEST, 1))
    )
    total = total + size * queries[:4] @ train.T
  return total


def test_inner_products_are_those_of_tracin(
  influence, workdir, tmp_path, tracin
):
  task = ['--task', 'tests.pipeline.tasks.test_checkpoint_sum:make_task']
  task += ['--task_arg', f'workdir={workdir}']
  made = influence(
    *('query-basis', *task, '--out', tmp_path / 'b', '--method', 'gradient'),
    *('--query_split', 'test[:4]'),
  )
  assert made.status == 0, made.stderr
  where = ['--basis', tmp_path / 'b', '--index', tmp_path / 'i']
  assert influence('project', *task, *where).status == 0
  opened = index_reader.Index(str(tmp_path / 'i'))
  found = opened.vectors(np.arange(linear_task.NUM_TRAIN)).T
  np.testing.assert_allclose(found, tracin, atol=1e-5 * np.abs(tracin).max())


def test_part_of_the_parameters_can_be_selected(workdir):
  reference = TaskReference(
    'tests.pipeline.tasks.test_checkpoint_sum:make_task',
    {'workdir': str(workdir)},
  ).selecting(['late/weights'])
  loaded = loaded_task.LoadedTask.load(reference)
  assert list(loaded.selected) == ['late/weights']


def test_no_checkpoints_are_refused(workdir):
  with pytest.raises(errors.InputError, match='linear has no checkpoints'):
    checkpoint_sum.sum_checkpoints(linear_task.make_task(str(workdir)), {})
