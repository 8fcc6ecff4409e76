"""Projection by the hosts of a pod: two processes with two devices each."""

import signal

import pytest

from influence_core import errors
from launch.flags import parser as flags_lib
from launch.output import console
from launch.running import hosts_projection, processes
from pipeline.projection import job as projection_job
from tests.pipeline.bases.test_multi_process import finish, start
from tests.pipeline.beam.test_engines import wait_for_shards
from tests.pipeline.beam.test_project_corpus import assert_same_index


@pytest.mark.slow
def test_hosts_project_their_ranges(
  influence, task_flags, basis, index, tmp_path
):
  """The index is that of one process, also after a host was killed."""
  flags = [*task_flags, '--basis', basis, '--index', tmp_path]
  slow = [*flags, '--task_arg', 'fault=slow_examples', '--range_size', 40]
  killed = start(slow, name='project')
  wait_for_shards(tmp_path, 1)
  killed[1].send_signal(signal.SIGKILL)
  for process in killed:
    process.kill()
    process.communicate()
  done = finish(start([*flags, '--range_size', 40], name='project'))
  assert 'published generation 1' in done[0][0]
  assert 'published' not in done[1][0]
  assert_same_index(index, tmp_path)
  assert influence('verify', '--index', tmp_path).status == 0
  again = finish(start([*flags, '--range_size', 40], name='project'))
  assert 'nothing to do' in again[0][0]


def test_plan_is_there_before_the_work(
  task_flags, basis, tmp_path, monkeypatch
):
  """Else garbage collection would not spare what is committed meanwhile."""
  plans = []
  project = hosts_projection._project

  def noting(*arguments):
    plans.extend((tmp_path / 'i' / 'plans').iterdir())
    return project(*arguments)

  monkeypatch.setattr(hosts_projection, '_project', noting)
  _, values = flags_lib.parse(
    ['project', *task_flags, '--basis', str(basis)]
    + ['--index', str(tmp_path / 'i')]
  )
  job = projection_job.prepare(values['request'])
  hosts_projection.run(console.Console(), job, num_threads=1)
  assert len(plans) == 1


def test_machines_of_a_batch_job_find_each_other():
  hosts = ['b', 'c', 'a']
  found = [processes.batch_environment(hosts, [host, 'x']) for host in hosts]
  assert [x['JAX_PROCESS_ID'] for x in found] == ['1', '2', '0']
  assert {x['JAX_COORDINATOR_ADDRESS'] for x in found} == {'a:8476'}
  assert {x['JAX_NUM_PROCESSES'] for x in found} == {'3'}
  with pytest.raises(errors.InputError, match='not among the hosts'):
    processes.batch_environment(hosts, ['d'])


def test_hosts_do_without_beam(influence, task_flags, basis, tmp_path):
  flags = ['project', *task_flags, '--basis', basis, '--index', tmp_path / 'i']
  line = influence(*flags, '--multi_process', '--engine', 'dask').error_line
  assert 'multi_process does without Beam' in line
