"""Preprocessing of many examples at once gives what that of each gives."""

import dataclasses

import jax
import numpy as np
import pytest

from influence_core import errors
from pipeline.tasks import example_batches, example_form, first_examples
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
