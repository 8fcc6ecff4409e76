"""Features of a job have one form, whatever later examples come as."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.tasks import feature_form, loaded_task, queries
from pipeline.tasks.reference import TaskReference


def form_of(*values):
  return feature_form.FeatureForm.of(
    [feature_form.prepared({'a': value}) for value in values]
  )


def fitted(form, value):
  return form.convert(feature_form.prepared({'a': value}))['a']


@pytest.mark.parametrize(
  ('first', 'later', 'dtype'),
  [
    (1.5, 1, 'float64'),
    (np.float32(1.5), 0.1, 'float32'),  # Both are float32 on devices.
    (1.5, np.float32(0.1), 'float64'),
    (1, 2.0, 'int64'),
    (np.int32(1), 7, 'int32'),
    (1, True, 'int64'),
    (np.float32(1), np.nan, 'float32'),
    (jnp.bfloat16(1), 2.0, 'bfloat16'),
  ],
)
def test_numbers_are_converted_where_nothing_is_lost(first, later, dtype):
  found = fitted(form_of(first), later)
  assert found.dtype.name == dtype
  np.testing.assert_array_equal(found, np.asarray(later).astype(dtype))


def test_first_examples_are_joined():
  assert form_of(1, 2.5).dtypes == (np.dtype('float64'),)


@pytest.mark.parametrize(
  ('first', 'later', 'message'),
  [
    (1, 1.5, 'a is 1.5 of float64, which int64 of the first examples does'),
    (1, np.nan, 'a is nan of float64'),
    (np.int8(1), 300, 'a is 300 of int64'),
    (np.float16(1), 0.1, 'a is 0.1 of float64'),
    (True, 2, 'a is 2 of int64'),
    (1.5, 1j, 'a is 1j of complex128'),
    (np.zeros(3, int), np.full(3, 0.5), 'a is of float64, which int64'),
    (np.zeros(3), np.zeros(4), r'a has shape \(4,\), expected \(3,\), as in'),
    (1, {'b': 2}, 'there is a/b, which the first examples have not'),
    (1, {}, 'returned a dict without any array'),
  ],
)
def test_what_does_not_fit_is_named(first, later, message):
  with pytest.raises(feature_form.UnfitFeaturesError, match=message):
    fitted(form_of(first), later)


@pytest.mark.parametrize(
  ('features', 'message'),
  [
    (None, 'returned a NoneType without any array, expected a pytree'),
    ({'a': 'text'}, 'a is text, expected numbers'),
    ('text', 'the array is text'),
    ({'a': {'b': {1, 2}}}, 'a/b is object, expected numbers'),
    ({'a': np.datetime64('2026-01-01')}, 'a is datetime64'),
    ({'a': 2**40}, f'a is as large as {2**40}, expected .* the int32 of dev'),
    ({'a': -(2**40)}, f'a is as large as {2**40}'),
    ({'a': np.uint64([1, 2**63])}, f'as large as {2**63}, .* uint32 of dev'),
    ({'a': 2**70}, 'a is object'),
    ({'a': np.ma.masked_array([1, 2], [True, False])}, 'a is a masked array'),
    ({'a': [[1, 2], [3]]}, 'a list has lists of several lengths'),
  ],
)
def test_what_no_program_can_use_is_named(features, message):
  with pytest.raises(feature_form.UnfitFeaturesError, match=message):
    feature_form.prepared(features)


@pytest.mark.parametrize(
  ('features', 'shapes'),
  [
    ({'a': [1, 2, 3]}, {'a': (3,)}),
    ({'a': [[1, 2], [3, 4]], 'b': [np.float32(1)]}, {'a': (2, 2), 'b': (1,)}),
    ((1, 2.0), ((), ())),
    ([np.ones(3), 4], [(3,), ()]),
    ({'a': jnp.ones(2), 'b': None}, {'a': (2,), 'b': None}),
  ],
)
def test_lists_of_numbers_are_arrays(features, shapes):
  found = feature_form.prepared(features)
  assert jax.tree.map(np.shape, found) == shapes
  assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def flags(workdir, numbers, **more):
  arguments = {'workdir': workdir, 'numbers': numbers, **more}
  pairs = [f'{name}={value}' for name, value in arguments.items()]
  task = ['--task', 'tests.kit.odd_tasks:make_task']
  return task + [x for pair in pairs for x in ('--task_arg', pair)]


SMALL = ['--projection_dim', 2, '--num_iterations', 3, '--sample_size', 303]


@pytest.mark.slow
def test_integers_among_floats_are_the_same_job(influence, workdir, tmp_path):
  vectors = []
  for numbers in ('mixed', 'floats'):
    place = tmp_path / numbers
    task = flags(workdir, numbers)
    fitted = influence('fit-basis', *task, '--out', place / 'b', *SMALL)
    assert fitted.status == 0, fitted.stderr
    made = influence(
      *('project', *task, '--basis', place / 'b', '--index', place / 'i'),
      *('--batch_size', 8, '--json'),
    )
    assert made.status == 0, made.stderr
    assert made.json['num_rejected'] == 0
    opened = index_reader.Index(str(place / 'i'))
    vectors.append(opened.vectors(range(303)))
  np.testing.assert_array_equal(*vectors)


@pytest.mark.slow
@pytest.mark.parametrize(
  ('numbers', 'reason'),
  [
    ('lossy', 'features: weight is 1.5 of float64, which int64 of the first'),
    ('long', 'features: x has shape (6,), expected (5,), as in the first exam'),
    ('fewer', 'features: y is absent; give it in every example'),
  ],
)
def test_examples_of_another_form_are_left_out_by_name(
  influence, workdir, tmp_path, numbers, reason
):
  task = flags(workdir, numbers)
  fit = ['fit-basis', *task, '--out', tmp_path / 'b', *SMALL]
  failed = influence(*fit)
  assert failed.status == 6
  assert '3 of 303 sampled examples were rejected' in failed.error_line
  assert f'__50 ({reason}' in failed.error_line
  fitted = influence(*fit, '--max_rejected_fraction', 0.01, '--json')
  assert fitted.status == 0, fitted.stderr
  assert fitted.json['report']['sample_size'] == 300
  project = ['project', *task, '--basis', tmp_path / 'b']
  project += ['--index', tmp_path / 'i', '--json']
  failed = influence(*project)
  assert failed.status == 6
  assert reason in failed.error_line
  made = influence(*project, '--max_rejected_fraction', 0.01)
  assert made.json['num_rejected'] == 3
  assert manifest_lib.load(str(tmp_path / 'i')).num_examples == 300


def test_query_of_another_form_is_named(workdir):
  loaded = loaded_task.LoadedTask.load(
    TaskReference(
      'tests.kit.odd_tasks:make_task',
      {'workdir': str(workdir), 'numbers': 'long'},
    )
  )
  with pytest.raises(
    ValueError, match=r'1 queries cannot be used, .*__50 \(features: x has sha'
  ):
    queries.read(loaded, 'train[:60]')


def test_text_is_no_feature(influence, workdir, tmp_path):
  found = influence(
    'fit-basis', *flags(workdir, 'text'), '--out', tmp_path / 'b'
  )
  assert 'preprocess: y is text, expected numbers' in found.error_line
