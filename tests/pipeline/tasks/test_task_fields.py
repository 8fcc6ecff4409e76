"""A task with fields of a wrong type is told before anything is done."""

import dataclasses

import numpy as np
import pytest

from influence_core import errors
from pipeline import SplitLoss, Task, TfdsCorpus
from pipeline.tasks import task_fields
from tests.kit import linear_task


@pytest.mark.parametrize(
  ('field', 'value', 'message'),
  [
    ('name', None, 'is None, expected text'),
    ('load_parameters', {'a': 1}, "is {'a': 1}, expected a function"),
    ('per_example_loss', None, 'is None, expected a function of'),
    ('corpus', 'mnist', "is 'mnist', expected a corpus"),
    ('corpus', TfdsCorpus, 'is the class TfdsCorpus, expected a corpus'),
    ('preprocess', np.zeros(50), 'is a ndarray, expected a function'),
    ('sequences', 'tokens', "is 'tokens', expected a sequence of paths"),
    ('buckets', 64, 'is 64, expected a sequence of lengths'),
    ('example_id', 3, 'is 3, expected the name of a feature, or None'),
    ('measurement', 'margin', "is 'margin', expected a function of"),
    ('predict', {}, 'is {}, expected a function of (params, features)'),
    ('row_columns', {'label': 1}, 'expected a function of a raw example, or'),
    ('loss_reduction', None, "is None, expected text such as 'mean'"),
    ('parameter_paths', 'kernel', "is 'kernel', expected a sequence"),
    ('parameter_paths', [1], 'is [1], expected a sequence'),
    ('l2_weight', '0.1', "is '0.1', expected a number"),
    ('l2_weight', float('nan'), 'is nan, expected a number'),
    ('split_loss', linear_task.outputs, 'is a function, expected a SplitLoss'),
    ('split_loss', SplitLoss(None, None), 'expected a SplitLoss of two func'),
    ('retrain', 3, 'is 3, expected a function of (ids, seed), or None'),
    ('version', 2, "is 2, expected text such as '2'"),
  ],
)
def test_wrong_field_is_named(workdir, field, value, message):
  task = linear_task.make_task(str(workdir))
  wrong = dataclasses.replace(task, **{field: value})
  with pytest.raises(errors.InputError) as error:
    task_fields.checked('mine:make', wrong)
  line = str(error.value)
  assert line.startswith(f'mine:make returned a Task whose {field} is ')
  assert message in line


def test_numbers_of_numpy_are_numbers(workdir):
  task = linear_task.make_task(str(workdir), l2_weight=np.float32(0.5))
  found = task_fields.checked('mine:make', task)
  assert type(found.l2_weight) is float
  assert found.l2_weight == 0.5


class Linear(Task):
  """A task whose functions are methods."""

  def __init__(self, workdir):
    self.__dict__['workdir'] = workdir

  name = 'linear'
  preprocess = staticmethod(linear_task.features)

  @property
  def corpus(self):
    return TfdsCorpus('points', 'train', f'{self.workdir}/data')

  def load_parameters(self):
    return {'weights': np.ones(5), 'bias': np.zeros(())}

  def per_example_loss(self, params, features):
    return linear_task.per_example_loss(params, features)


def test_methods_may_stand_for_fields(workdir):
  task = task_fields.checked('mine:make', Linear(workdir))
  assert type(task) is Task
  assert task.row_columns is None
  assert task.num_selected() == 6
  _, raw = next(task.corpus.read_positions([0]))
  features = {'x': raw['x'][None], 'y': np.ones(1)}
  assert task.per_example_loss(task.load_parameters(), features).shape == (1,)
