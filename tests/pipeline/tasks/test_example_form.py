"""Unusable examples at the beginning of a corpus stop no command."""

import numpy as np
import pytest

from influence_core import errors
from pipeline.corpora import record_files
from pipeline.tasks import first_examples, loaded_task
from pipeline.tasks.reference import TaskReference


def reference(workdir, **arguments):
  return TaskReference(
    'tests.kit.odd_tasks:make_task', {'workdir': str(workdir), **arguments}
  )


def flags(workdir, numbers):
  task = ['--task', 'tests.kit.odd_tasks:make_task']
  return [
    *task,
    *('--task_arg', f'workdir={workdir}', '--task_arg', f'numbers={numbers}'),
  ]


def numbers_of(ids):
  return [int(name.rpartition('__')[2]) for name in ids]


@pytest.mark.parametrize(
  ('numbers', 'checked'),
  [
    ('plain', [0, 1, 2, 3]),
    ('bad_start', [1, 3, 4, 5]),
    ('first_long', [1, 2, 3, 4]),
    ('nan_start', [5, 6, 7]),
    ('without_numbers', [0, 1, 2, 3]),
  ],
)
def test_next_ones_are_taken(workdir, numbers, checked):
  loaded = loaded_task.LoadedTask.load(reference(workdir, numbers=numbers))
  assert numbers_of(loaded.checked_ids) == checked
  probe = loaded.first_examples()
  assert len(probe) == first_examples.NUM_CHECKED
  # What preprocessing is known by is the same when it is read with a basis.
  probed = loaded_task.LoadedTask.unchecked(
    reference(workdir, numbers=numbers), probe=tuple(probe)
  )
  assert probed.fingerprints == loaded.fingerprints
  assert probed.form == loaded.form


@pytest.mark.slow
@pytest.mark.parametrize(
  ('numbers', 'expected'),
  [
    ('bad_start', 6),
    ('nan_start', 15),
    ('first_long', 3),
    ('infinite_start', 15),
  ],
)
def test_commands_go_on_without_them(
  influence, workdir, tmp_path, numbers, expected
):
  task, allowed = flags(workdir, numbers), ['--max_rejected_fraction', 0.1]
  if numbers == 'infinite_start':  # Of the gradient, not of the loss.
    task += ['--task_arg', 'loss=root']
  fitted = influence(
    *('fit-basis', *task, '--out', tmp_path / 'b', '--projection_dim', 2),
    *('--num_iterations', 3, *allowed),
  )
  assert fitted.status == 0, fitted.stderr
  made = influence(
    *('project', *task, '--basis', tmp_path / 'b', '--index', tmp_path / 'i'),
    *(*allowed, '--json'),
  )
  assert made.status == 0, made.stderr
  assert made.json['num_rejected'] == expected


def test_damaged_record_at_the_beginning(
  influence, workdir, tmp_path, monkeypatch
):
  read = record_files.RecordFiles.read

  def damaged(self, path, positions):
    records = read(self, path, positions)
    if '-00000-of-' not in path:
      return records
    return [
      record[:3] if position == 0 else record
      for position, record in zip(positions, records, strict=True)
    ]

  monkeypatch.setattr(record_files.RecordFiles, 'read', damaged)
  task = flags(workdir, 'plain')
  fitted = influence(
    *('fit-basis', *task, '--out', tmp_path / 'b', '--projection_dim', 2),
    *('--num_iterations', 3, '--max_rejected_fraction', 0.01),
  )
  assert fitted.status == 0, fitted.stderr
  made = influence(
    *('project', *task, '--basis', tmp_path / 'b', '--index', tmp_path / 'i'),
    *('--max_rejected_fraction', 0.01, '--json'),
  )
  assert made.status == 0, made.stderr
  assert made.json['num_rejected'] == 1


def test_none_that_can_be_used(influence, workdir, tmp_path):
  found = influence(
    'fit-basis', *flags(workdir, 'all_bad'), '--out', tmp_path / 'b'
  )
  assert 'none of the first 64 examples can be used; the first is ' in (
    found.error_line
  )
  assert '__0 (preprocess: ValueError: no such thing, ' in found.error_line
  assert 'tests/kit/odd_tasks.py:' in found.error_line


@pytest.mark.parametrize(
  ('numbers', 'message'),
  [
    ('random', r'gives other features of .*__0 when it is called again'),
    ('leaving', r'__0 \(preprocess: SystemExit: 0, .*odd_tasks.py:'),
    ('enormous', r'features of 4 examples, .* take .* make them smaller'),
  ],
)
def test_preprocessing_that_cannot_be_used(workdir, numbers, message):
  with pytest.raises(errors.InputError, match=message):
    loaded_task.LoadedTask.load(reference(workdir, numbers=numbers))


def test_preprocessing_may_change_what_it_is_given(workdir):
  """The first examples are preprocessed again, and kept with a basis."""
  loaded = loaded_task.LoadedTask.load(
    reference(workdir, numbers='changed_in_place')
  )
  plain = loaded_task.LoadedTask.load(reference(workdir))
  np.testing.assert_array_equal(
    2 * loaded.checked_features['x'], plain.checked_features['x']
  )
  for one, other in zip(
    loaded.first_examples(), plain.first_examples(), strict=True
  ):
    assert one.keys() == other.keys()
    np.testing.assert_array_equal(one['x'], other['x'])
