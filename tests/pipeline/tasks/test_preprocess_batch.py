"""Preprocessing of many examples at once gives what that of each gives."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.index import format as index_format
from pipeline.tasks import (
  example_batches,
  example_form,
  first_examples,
  task as task_lib,
)
from tests.kit import linear_task

NUM_EXAMPLES = 60


def together(raw_examples):
  return {
    'x': np.stack([raw['x'] for raw in raw_examples]),
    'y': np.array([float(raw['y']) for raw in raw_examples]),
  }


@pytest.fixture(name='make')
def fixture_make(workdir):
  """A task that counts in `sizes` what is preprocessed at once."""

  def make(preprocess_batch, fault=''):
    sizes = []

    def counting(raw_examples):
      sizes.append(len(raw_examples))
      return preprocess_batch(raw_examples)

    task = linear_task.make_task(str(workdir), fault=fault)
    return dataclasses.replace(task, preprocess_batch=counting), sizes

  return make


def batches_of(task):
  one_by_one = dataclasses.replace(task, preprocess_batch=None)
  form = example_form.ExampleForm.of(
    one_by_one, first_examples.first_usable(one_by_one)
  )
  return tuple(
    list(
      example_batches.by_length(
        x, form, task.corpus.read_positions(range(NUM_EXAMPLES)), 16
      )
    )
    for x in (task, one_by_one)
  )


def assert_same(found, expected):
  assert len(found) == len(expected) == 4
  for one, other in zip(found, expected, strict=True):
    assert one.ids == other.ids
    assert one.columns == other.columns
    assert one.rejected == other.rejected
    jax.tree.map(np.testing.assert_array_equal, one.features, other.features)


def test_batches_are_the_same(make):
  task, sizes = make(together)
  assert_same(*batches_of(task))
  assert sizes == [16, 16, 16, 12]


def test_bad_example_is_found_one_by_one(make):
  """Its batch alone is read in the slower way."""

  def failing(raw_examples):
    for raw in raw_examples:
      linear_task.preprocess(raw, 'bad_example')
    return together(raw_examples)

  task, _ = make(failing, 'bad_example')
  found, expected = batches_of(task)
  assert_same(found, expected)
  [(example_id, reason)] = found[3].rejected.items()
  assert example_id.endswith('__50')
  assert reason.startswith('preprocess: ValueError: no such thing')


def test_other_form_of_a_batch_is_not_taken(make):
  def shorter(raw_examples):
    features = together(raw_examples)
    return {**features, 'x': features['x'][:, :4]}

  task, sizes = make(shorter)
  assert_same(*batches_of(task))
  assert len(sizes) == 4


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda f: {**f, 'x': 2 * f['x']}, 'gives other features than preprocess'),
    (lambda f: {'x': f['x']}, 'preprocess_batch: y is absent'),
    (lambda f: f['z'], "preprocess_batch: KeyError: 'z'"),
  ],
)
def test_what_is_no_stack_of_them_is_refused(make, change, message):
  task, _ = make(lambda raw_examples: change(together(raw_examples)))
  examples = first_examples.first_usable(task)
  form = example_form.ExampleForm.of(task, examples)
  with pytest.raises(errors.InputError, match=message):
    first_examples.check_first(task, form, examples)


def test_sequences_are_preprocessed_one_by_one(make):
  task, _ = make(together)
  task = dataclasses.replace(task, sequences=('x',))
  examples = first_examples.first_usable(task)
  form = example_form.ExampleForm.of(task, examples)
  with pytest.raises(errors.InputError, match='leave preprocess_batch out'):
    first_examples.check_first(task, form, examples)


@pytest.fixture(name='make_of_columns')
def fixture_make_of_columns(tmp_path):
  """A task on arrays, that counts in `lengths` rows that are read."""
  generator = np.random.default_rng(0)
  x = generator.normal(size=(NUM_EXAMPLES, 8)).astype(np.float32)
  np.savez(tmp_path / 'a.npz', x=x, y=np.arange(NUM_EXAMPLES))

  def make(monkeypatch, **more):
    rows = []
    corpus = FileCorpus(str(tmp_path / 'a.npz'))
    read_records = FileCorpus.read_records

    def counting(self, name, records):
      rows.extend(records)
      return read_records(self, name, records)

    monkeypatch.setattr(FileCorpus, 'read_records', counting)
    task = task_lib.Task(
      name='columns',
      load_parameters=dict,
      per_example_loss=lambda params, f: f['y'],
      corpus=corpus,
      preprocess=lambda raw: {'x': raw['x'] / 2, 'y': raw['y']},
      preprocess_batch=lambda batch: {
        'x': batch.column('x') / 2,
        'y': batch.column('y'),
      },
    )
    return dataclasses.replace(task, **more), rows

  return make


def ranges_of(task):
  form = example_form.ExampleForm.of(task, first_examples.first_usable(task))
  [shard] = task.corpus.source_shards()
  part = index_format.ExampleRange(shard.name, 3, NUM_EXAMPLES, 'any')
  one_by_one = dataclasses.replace(task, preprocess_batch=None)
  expected = list(example_batches.read_range(one_by_one, form, part, 16))
  return expected, example_batches.read_range(task, form, part, 16)


def test_columns_are_read_without_rows(monkeypatch, make_of_columns):
  task, rows = make_of_columns(monkeypatch)
  expected, found = ranges_of(task)
  rows.clear()
  assert_same(list(found), expected)
  assert not rows


def test_rows_are_read_for_row_columns(monkeypatch, make_of_columns):
  task, rows = make_of_columns(
    monkeypatch, row_columns=lambda raw: {'label': raw['y']}
  )
  expected, found = ranges_of(task)
  rows.clear()
  assert_same(list(found), expected)
  assert rows == [*range(3, NUM_EXAMPLES)]
  assert expected[0].columns['label'].to_pylist() == [*range(3, 19)]


def test_batch_that_fails_by_columns_is_read_by_rows(
  monkeypatch, make_of_columns
):
  def failing(batch):
    if 50 in batch.column('y'):
      raise ValueError('no such thing')
    return {'x': batch.column('x') / 2, 'y': batch.column('y')}

  task, rows = make_of_columns(monkeypatch, preprocess_batch=failing)
  expected, found = ranges_of(task)
  rows.clear()
  assert_same(list(found), expected)
  assert {*rows} == {*range(35, 51)}
