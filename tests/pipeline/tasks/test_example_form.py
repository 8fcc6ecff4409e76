"""Unusable examples at the beginning of a corpus stop no command."""

import pytest

from pipeline.corpora import record_files
from pipeline.tasks import example_form, loaded_task
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
  ],
)
def test_next_ones_are_taken(workdir, numbers, checked):
  loaded = loaded_task.LoadedTask.load(reference(workdir, numbers=numbers))
  assert numbers_of(loaded.checked_ids) == checked
  probe = loaded.first_examples()
  assert len(probe) == example_form.NUM_CHECKED
  # What preprocessing is known by is the same when it is read with a basis.
  probed = loaded_task.LoadedTask.unchecked(
    reference(workdir, numbers=numbers), probe=tuple(probe)
  )
  assert probed.fingerprints == loaded.fingerprints
  assert probed.form == loaded.form


@pytest.mark.slow
@pytest.mark.parametrize('numbers', ['bad_start', 'nan_start', 'first_long'])
def test_commands_go_on_without_them(influence, workdir, tmp_path, numbers):
  task, allowed = flags(workdir, numbers), ['--max_rejected_fraction', 0.1]
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
  expected = {'bad_start': 6, 'nan_start': 15, 'first_long': 3}[numbers]
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
  assert '__0 (preprocess: ValueError: no such thing)' in found.error_line
