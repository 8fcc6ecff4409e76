"""Grain's own data sources and datasets as corpora."""

import dataclasses
import datetime
import decimal
import re

from array_record.python import array_record_module
import pytest

from influence_core import errors
from pipeline import SourceCorpus
from pipeline.corpora.corpus import UndecodableExample
from tests.kit import linear_task

grain = pytest.importorskip('grain', reason='grain is not installed')

SEED = 7


def dataset(split):
  """The points in another order, with what JSON could not hold."""
  count = linear_task.NUM_TRAIN if split == 'train' else linear_task.NUM_TEST
  x, y = linear_task.points(count, seed=0 if split == 'train' else 1)

  def example(row):
    return {
      'x': x[row],
      'y': y[row],
      'row': row,
      'day': datetime.date(2026, 1, 1) + datetime.timedelta(row),
      'price': decimal.Decimal(row) / 8,
    }

  made = grain.MapDataset.source(list(range(count))).map(example)
  return made.shuffle(seed=SEED) if split == 'train' else made


def make_task(workdir: str):
  """The linear task over Grain's datasets.

  Args:
    workdir: see `linear_task.prepare`.
  """
  return dataclasses.replace(
    linear_task.make_task(workdir),
    corpus=SourceCorpus({x: dataset(x) for x in ('train', 'test')}, 'g', '1'),
    row_columns=lambda raw: {'row': raw['row'], 'day': raw['day']},
  )


def test_array_records(tmp_path):
  path = str(tmp_path / 'a.array_record')
  writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
  for number in range(20):
    writer.write(f'{number}'.encode())
  writer.close()
  source = grain.sources.ArrayRecordDataSource(path)
  corpus = SourceCorpus({'train': source}, 'records', '1', 'train[10:]')
  corpus.check()
  found = [raw['example'] for _, raw in corpus.read_positions([9, 0, 3])]
  assert found == [b'19', b'10', b'13']
  # As the beginning of what Grain works on further.
  numbers = grain.MapDataset.source(source).map(int)
  corpus = SourceCorpus({'train': numbers}, 'numbers', '1')
  assert [raw['example'] for _, raw in corpus.read_positions([5])] == [5]


def test_any_dataset_by_position():
  numbers = grain.MapDataset.source(list(range(6)))
  noisy = numbers.seed(3).random_map(lambda x, rng: rng.integers(1000))
  for made in (numbers.shuffle(seed=1), noisy, numbers[1:4], numbers.repeat(2)):
    corpus = SourceCorpus({'train': made}, 'numbers', '1')
    corpus.check()
    places = [*range(len(made)), 0]
    found = [raw['example'] for _, raw in corpus.read_positions(places)]
    assert found == [made[place] for place in places]


def test_datasets_that_fit_badly():
  numbers = grain.MapDataset.source(list(range(6)))
  some = SourceCorpus({'train': numbers.filter(lambda x: x > 0)}, 'some', '1')
  first, second = (raw for _, raw in some.read_positions([0, 1]))
  assert isinstance(first, UndecodableExample)
  assert second['example'] == 1
  for made, message in (
    (numbers.repeat(), 'leave out repeat'),
    (numbers.to_iter_dataset(), 'without length'),
  ):
    with pytest.raises(errors.InputError, match=message):
      SourceCorpus({'train': made}, 'numbers', '1').check()


@pytest.mark.slow
def test_whole_way_over_a_dataset(
  influence, workdir, task_flags, index, tmp_path
):
  """The leaders are those of the same points in a TFDS dataset."""
  mine = ['--task', f'{__name__}:make_task', '--task_arg', f'workdir={workdir}']
  small = ['--projection_dim', 6, '--num_iterations', 6]
  basis, own = tmp_path / 'basis', tmp_path / 'index'
  done = influence('fit-basis', *mine, '--out', basis, *small)
  assert done.status == 0, done.stderr
  project = ['project', *mine, '--basis', basis, '--index', own, '--json']
  assert influence(*project).json['num_projected'] == linear_task.NUM_TRAIN
  assert influence(*project).json['num_projected'] == 0
  query = ['--query_split', 'test[:3]', '--k', 5, '--json']
  found = influence('topk', *mine, '--index', own, *query).json
  theirs = influence('topk', *task_flags, '--index', index, *query).json
  for one, other in zip(found['results'], theirs['results'], strict=True):
    file, record = re.search(r'-(\d+)-of-\d+__(\d+)$', other['id']).groups()
    rows_of_file = linear_task.NUM_TRAIN // 3
    assert one['row'] == int(file) * rows_of_file + int(record)
    assert one['score'] == pytest.approx(other['score'], rel=1e-4)
