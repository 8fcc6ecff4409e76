"""Examples read ahead by processes are those that a worker reads itself."""

import os
import signal

import jax
import numpy as np
import psutil
import pytest

from influence_core import errors
from pipeline.index import format as index_format
from pipeline.projection import input_pool, input_processes
from pipeline.tasks import example_batches, loaded_task
from pipeline.tasks.reference import TaskReference
from tests.kit import sequence_task, token_task
from tests.pipeline.bases.test_multi_process import start
from tests.pipeline.beam.test_engines import wait_for_shards
from tests.pipeline.beam.test_project_corpus import contents


def linear(workdir, tmp_path, fault='bad_example'):
  del tmp_path
  return TaskReference(
    'tests.kit.linear_task:make_task',
    {'workdir': str(workdir), 'fault': fault},
  )


def large(workdir, tmp_path):
  return linear(workdir, tmp_path, fault='large_features')


def sequences(workdir, tmp_path):
  del workdir
  sequence_task.write(tmp_path / 'texts.jsonl')
  return TaskReference(
    'tests.kit.sequence_task:make_task', {'path': f'{tmp_path}/texts.jsonl'}
  )


def tokens(workdir, tmp_path):
  del workdir
  token_task.write(tmp_path / 'texts.jsonl')
  return TaskReference(
    'tests.kit.token_task:make_task', {'path': f'{tmp_path}/texts.jsonl'}
  )


def ranges_of(loaded):
  return [
    index_format.ExampleRange(shard.name, shard.start, shard.stop, 'f')
    for shard in loaded.task.corpus.source_shards()
  ]


def read_here(loaded, example_range, batch_size):
  return list(
    example_batches.read_range(
      loaded.task, loaded.form, example_range, batch_size
    )
  )


def start_for(reference, loaded, num_processes=2, per_token=False):
  source = input_pool.Source(reference, loaded.form, per_token)
  return input_processes.InputProcesses(source, num_processes)


@pytest.mark.parametrize('kind', [linear, large, sequences, tokens])
def test_batches_are_the_same(kind, workdir, tmp_path, monkeypatch):
  """Of several pieces of a range, whatever is rejected."""
  reference = kind(workdir, tmp_path)
  loaded = loaded_task.LoadedTask.unchecked(reference)
  per_token = kind is tokens
  if per_token:
    loaded = loaded.by_token()
  monkeypatch.setattr(input_processes.corpus_lib, 'READ_TOGETHER', 32)
  processes = start_for(reference, loaded, per_token=per_token)
  num_rejected = 0
  for example_range in ranges_of(loaded):
    found = list(processes.batches(example_range, 16))
    expected = read_here(loaded, example_range, 16)
    assert [x.ids for x in found] == [x.ids for x in expected]
    for one, other in zip(found, expected, strict=True):
      assert one.columns == other.columns
      jax.tree.map(np.testing.assert_array_equal, one.features, other.features)
    rejected = {k: v for x in found for k, v in x.rejected.items()}
    assert rejected == {k: v for x in expected for k, v in x.rejected.items()}
    num_rejected += len(rejected)
  assert (num_rejected > 0) == (kind is linear)


def test_killed_process_is_replaced(workdir, tmp_path, monkeypatch):
  """As one that needed too much memory for a moment; nothing is lost."""
  monkeypatch.setattr(input_processes.corpus_lib, 'READ_TOGETHER', 8)
  reference = linear(workdir, tmp_path, fault='slow_examples')
  loaded = loaded_task.LoadedTask.unchecked(reference)
  processes = start_for(reference, loaded, num_processes=1)
  example_range = ranges_of(loaded)[0]
  batches = processes.batches(example_range, 8)
  found = [next(batches)]
  [child] = processes._pool._processes
  os.kill(child, signal.SIGKILL)
  found += batches
  expected = read_here(loaded, example_range, 8)
  assert [x.ids for x in found] == [x.ids for x in expected]
  assert not any(x.rejected for x in found)


@pytest.mark.slow
def test_example_that_kills_its_process_is_left_out(workdir, tmp_path):
  reference = linear(workdir, tmp_path, fault='killing_example')
  plain = linear(workdir, tmp_path, fault='')
  loaded = loaded_task.LoadedTask.unchecked(plain)
  processes = start_for(reference, loaded)
  example_range = ranges_of(loaded)[0]
  found = list(processes.batches(example_range, 32))
  ids = [x for batch in found for x in batch.ids]
  expected = [x for y in read_here(loaded, example_range, 32) for x in y.ids]
  bad = f'{example_range.source_shard}__50'
  assert ids == [x for x in expected if x != bad]
  [rejected] = [x.rejected for x in found if x.rejected]
  assert rejected == {bad: input_processes.KILLED}


def test_task_that_cannot_be_loaded_is_told(workdir, tmp_path, monkeypatch):
  monkeypatch.setattr(input_processes, '_MAX_KILLED', 1)
  loaded = loaded_task.LoadedTask.unchecked(linear(workdir, tmp_path))
  other = TaskReference('tests.kit.linear_task:not_a_task')
  processes = start_for(other, loaded, num_processes=1)
  with pytest.raises(errors.InputError, match='or could not load the task'):
    list(processes.batches(ranges_of(loaded)[0], 8))


def test_error_of_storage_is_told_as_it_is(workdir, tmp_path):
  reference = linear(workdir, tmp_path)
  loaded = loaded_task.LoadedTask.unchecked(reference)
  processes = start_for(reference, loaded, num_processes=1)
  absent = index_format.ExampleRange('absent.array_record', 0, 8, 'f')
  with pytest.raises(Exception, match=r'absent\.array_record') as error:
    list(processes.batches(absent, 8))
  with pytest.raises(type(error.value)):
    read_here(loaded, absent, 8)


@pytest.mark.slow
def test_index_is_the_same_and_none_outlives_the_command(
  influence, task_flags, basis, index, tmp_path
):
  flags = [*task_flags, '--basis', basis, '--range_size', 40]
  ahead = ['--num_preprocess_workers', 2]
  slow = ['--task_arg', 'fault=slow_examples', '--index', tmp_path / 'killed']
  [process] = start([*flags, *ahead, *slow], name='project', num_processes=1)
  wait_for_shards(tmp_path / 'killed', 1)
  children = psutil.Process(process.pid).children(recursive=True)
  assert len(children) >= 2
  process.kill()
  process.communicate()
  _, alive = psutil.wait_procs(children, timeout=20)
  assert not alive
  done = influence('project', *flags, *ahead, '--index', tmp_path / 'i')
  assert done.status == 0, done.stderr
  (ids, numbers), (expected_ids, expected) = map(
    contents, (tmp_path / 'i', index)
  )
  assert ids == expected_ids
  np.testing.assert_array_equal(numbers, expected)


def test_number_is_chosen(workdir, tmp_path, monkeypatch):
  loaded = loaded_task.LoadedTask.unchecked(linear(workdir, tmp_path))

  def choose(wanted):
    return input_processes.choose_number(wanted, loaded.task, loaded.form)

  assert choose(None) == 0
  assert choose(3) == 3
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(8))
  assert choose(None) == 7
  assert choose(0) == 0
  monkeypatch.setattr(os, 'sched_getaffinity', lambda _: range(1))
  assert choose(None) == 1
  # As of an example that is read in less time than it takes to hand it over.
  monkeypatch.setattr(input_processes, '_FAST_SECONDS', 60.0)
  assert choose(None) == 0
  assert choose(2) == 2


def test_negative_number_is_refused(influence, task_flags, basis, tmp_path):
  flags = [*task_flags, '--basis', basis, '--index', tmp_path / 'i']
  line = influence('project', *flags, '--num_preprocess_workers', -1).error_line
  assert 'num_preprocess_workers is -1, expected' in line
