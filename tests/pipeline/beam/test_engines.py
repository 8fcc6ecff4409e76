"""The same index from every engine, also when a worker is killed."""

import os
import signal
import subprocess
import sys
import time

import pytest

from influence_core import errors
from launch.output import exit_status
from pipeline.beam import engine_files, engines
from pipeline.index import format as index_format, reader as index_reader
from tests.conftest import ROOT
from tests.kit import engine_servers, linear_task
from tests.pipeline.beam.test_project_corpus import flags
from tests.pipeline.projection.test_random_kills import num_committed

SERVERS = {
  'dask': engine_servers.dask,
  'portable': engine_servers.portable,
  'prism': engine_servers.prism,
  'prism_processes': engine_servers.prism_processes,
  'flink': lambda: engine_servers.embedded('flink'),
  'spark': lambda: engine_servers.embedded('spark'),
}


def stored_bytes(path):
  """What is equal of two indexes that are the same, byte for byte.

  Rows files name the vectors file of their attempt, so their tables are taken.
  """
  index = index_reader.Index(str(path))
  return [
    (
      shard.range,
      shard.vectors.crc32c,
      index_format.read_rows(str(path), shard),
    )
    for shard in index.manifest.shards
  ]


@pytest.mark.slow
@pytest.mark.parametrize('engine', SERVERS)
def test_index_is_that_of_the_local_engine(
  influence, task_flags, basis, index, tmp_path, engine
):
  with SERVERS[engine]() as servers:
    done = influence(
      *flags(task_flags, basis, tmp_path, '--range_size', 40, '--json'),
      *servers.flags,
    )
  assert done.status == 0, done.stderr
  assert done.json['num_examples'] == linear_task.NUM_TRAIN
  assert stored_bytes(index) == stored_bytes(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('engine', SERVERS)
def test_search_gives_the_answer_of_the_local_engine(
  influence, task_flags, index, engine
):
  flags = [*task_flags, '--index', index, '--query_split', 'test', '--json']
  with SERVERS[engine]() as servers:
    found = influence('topk', *flags, *servers.flags)
  assert found.status == 0, found.stderr
  assert found.json == influence('topk', *flags).json


@pytest.mark.slow
@pytest.mark.parametrize(
  'engine',
  [
    # Of ours one shows as much as all, which take minutes.
    name if name == 'portable' else pytest.param(name, marks=pytest.mark.scale)
    for name in SERVERS
    if name != 'prism_processes'
  ],
)
def test_killed_worker_is_survived(
  influence, task_flags, basis, index, tmp_path, engine
):
  slow = [*task_flags, '--task_arg', 'fault=slow_examples']
  place, whole = tmp_path / 'i', tmp_path / 'whole'
  with SERVERS[engine]() as servers:
    command = flags(slow, basis, place, '--range_size', 10, *servers.flags)
    with start(command) as process:
      wait_for_shards(place, 4)
      os.kill(servers.worker_pids()[0], signal.SIGKILL)
      before = num_committed(place)
      _, told = process.communicate(timeout=200)
  assert process.returncode == 0, told
  assert before < num_committed(place)
  assert influence('verify', '--index', place).status == 0
  done = influence(*flags(task_flags, basis, whole, '--range_size', 10))
  assert done.status == 0
  assert stored_bytes(whole) == stored_bytes(place)


@pytest.mark.slow
def test_killed_local_worker_is_told(influence, task_flags, basis, tmp_path):
  """Beam's local runner waits for it for ever."""
  slow = [*task_flags, '--task_arg', 'fault=slow_examples']
  mode = '--direct_running_mode=multi_processing'
  command = flags(slow, basis, tmp_path, '--range_size', 10, '--', mode)
  with start(command) as process:
    wait_for_shards(tmp_path, 4)
    worker = engine_servers.descendants('sdk_worker_main', process.pid)[0]
    os.kill(worker, signal.SIGKILL)
    _, told = process.communicate(timeout=60)
  assert process.returncode == exit_status.ExitStatus.STALLED
  assert f'its worker process {worker} was killed at points-train' in told
  assert 'Traceback' not in told
  finished = influence(*flags(slow, basis, tmp_path, '--range_size', 10))
  assert finished.status == 0


@pytest.mark.slow
def test_batch_that_never_ends_is_told(task_flags, basis, tmp_path):
  endless = [*task_flags, '--task_arg', 'fault=endless_example']
  command = flags(endless, basis, tmp_path, '--stall_minutes', 0.05)
  with start(command) as process:
    _, told = process.communicate(timeout=100)
  assert process.returncode == exit_status.ExitStatus.STALLED
  assert 'no batch of points-train.array_record-00000' in told
  assert 'Traceback' not in told


def start(command) -> subprocess.Popen:
  return subprocess.Popen(
    [sys.executable, '-m', 'launch', *map(str, command)],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.PIPE,
    text=True,
  )


def wait_for_shards(path, count: int) -> None:
  for _ in range(600):
    if num_committed(path) >= count:
      return
    time.sleep(0.1)
  raise TimeoutError(f'{path} has {num_committed(path)} shards')


def test_user_has_the_last_word():
  found = engines.arguments(
    'portable', 2, ['--job_endpoint=host:1', '--environment_type', 'LOOPBACK']
  )
  assert [x.split('=')[0] for x in found] == [
    '--runner',
    '--environment_config',
    '--job_endpoint',
    '--environment_type',
    'LOOPBACK',
  ]
  assert engines.arguments('prism', 2, ['--runner=X']) == ['--runner=X']


@pytest.mark.parametrize(
  ('given', 'replaced'),
  [
    (['--dataflow_service_options=enable_preflight_validation'], None),
    (['--experiments=shuffle_mode=service'], None),
    (['--experiments', 'use_runner_v2'], None),
    (
      ['--dataflow_service_options=worker_accelerator=type:nvidia-tesla-t4'],
      f'--dataflow_service_options=worker_accelerator='
      f'{engines.ACCELERATORS["dataflow-gpu"]}',
    ),
    (
      ['--experiments=use_multiple_sdk_containers'],
      '--experiments=no_use_multiple_sdk_containers',
    ),
    (['--disk_size_gb', '200'], '--disk_size_gb=100'),
  ],
)
def test_list_gains_what_is_given(given, replaced):
  """A word about something else takes no accelerator away."""
  preset = engines.arguments('dataflow-gpu', 1, [])
  found = engines.arguments('dataflow-gpu', 1, given)
  assert found == [*(x for x in preset if x != replaced), *given]


def test_options_are_told(influence, task_flags, basis, index):
  command = flags(task_flags, basis, index, '--range_size', 40)
  told = influence(*command, '--num_workers', 3).stderr
  assert 'engine=local options=--runner=FnApiRunner' in told
  assert '--direct_num_workers=3' in told


def test_missing_job_server_is_told_before_work(
  influence, task_flags, basis, tmp_path, monkeypatch
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  for engine in engine_files.FILES:
    command = flags(task_flags, basis, tmp_path / 'i', '--engine', engine)
    line = influence(*command).error_line
    assert f'run influence install-engine {engine}' in line
  assert not (tmp_path / 'i').exists()


@pytest.mark.slow
@pytest.mark.parametrize('command', ['project', 'topk'])
def test_server_that_does_not_answer_is_told(
  influence, task_flags, basis, index, tmp_path, command
):
  flags = {
    'project': ['--basis', basis, '--index', tmp_path],
    'topk': ['--index', index, '--query_split', 'test'],
  }[command]
  line = influence(
    *(command, *task_flags, *flags, '--engine', 'portable', '--'),
    *('--job_endpoint=localhost:1', '--job_server_timeout=1'),
  ).error_line
  assert 'the engine does not answer' in line


def test_altered_engine_file_is_refused(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  path = tmp_path / engine_files.path('prism')
  path.parent.mkdir(parents=True)
  path.write_text('program')
  path.with_name('prism.sha256').write_text(engine_files._sha256(path))
  engine_files.check('prism')
  path.write_text('other')
  with pytest.raises(errors.InputError, match='missing or altered'):
    engine_files.check('prism')


def test_tool_that_fails_or_is_missing_is_told(
  tmp_path, monkeypatch, influence
):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  monkeypatch.setenv('PATH', str(tmp_path))
  found = influence('install-engine', 'prism')
  assert 'go is not installed' in found.error_line
  tool = tmp_path / 'mvn'
  tool.write_text('#!/bin/sh\necho "[ERROR] no such artifact"\nexit 1\n')
  tool.chmod(0o755)
  line = influence('install-engine', 'flink').error_line
  assert 'mvn cannot fetch org.apache.beam:beam-runners-flink' in line
  assert '[ERROR] no such artifact' in line
