import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from pipeline.bases import stored_basis
from tests.kit import devices as device_runs, linear_task

NUM_PROCESSES = 2
NUM_DEVICES = 2
TIMEOUT_SECONDS = 120


@pytest.fixture(name='workdir', scope='module')
def fixture_workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('linear')
  linear_task.prepare(workdir)
  return workdir


def start(flags, *, num_processes=NUM_PROCESSES, name='fit-basis'):
  """The same command in every process, as on the hosts of a pod."""
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    port = probe.getsockname()[1]
  command = [sys.executable, '-m', 'launch', name, *map(str, flags)]
  if num_processes > 1:
    command.append('--multi_process')
  return [
    subprocess.Popen(
      command,
      env={
        **os.environ,
        'JAX_PLATFORMS': 'cpu',
        'XLA_FLAGS': device_runs.xla_flags(NUM_DEVICES),
        'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
        'JAX_NUM_PROCESSES': str(num_processes),
        'JAX_PROCESS_ID': str(number),
      },
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(num_processes)
  ]


def finish(processes):
  outputs = [
    process.communicate(timeout=TIMEOUT_SECONDS) for process in processes
  ]
  for process, output in zip(processes, outputs, strict=True):
    assert process.returncode == 0, output[1]
  return outputs


def flags_for(workdir, out, *more):
  return [
    '--task', 'tests.kit.linear_task:make_task',
    '--task_arg', f'workdir={workdir}',
    '--out', out, '--projection_dim', 3, '--sample_size', 101, *more,
  ]  # fmt: skip


def load(path):
  record = stored_basis.load_record(str(path))
  vectors = stored_basis.load(record).eigenvectors
  flat = np.concatenate(
    [vectors[path].reshape(3, -1) for path in sorted(vectors)], axis=1
  )
  return record, flat


@pytest.mark.slow
@pytest.mark.parametrize(
  ('placement', 'parameters'),
  [
    ('host', 'replicated'),
    ('device', 'replicated'),
    ('disk', 'replicated'),
    ('device', 'sharded'),
  ],
)
def test_basis_of_two_processes_is_that_of_one(
  workdir, tmp_path, placement, parameters
):
  options = [
    '--num_iterations', 5, '--krylov_placement', placement,
    '--parameter_placement', parameters, '--num_trace_probes', 2,
    '--tolerance', 0.5,
  ]  # fmt: skip
  outputs = finish(start(flags_for(workdir, tmp_path / 'two', *options)))
  assert 'pair' in outputs[0][0]
  assert 'pair' not in outputs[1][0]  # The first process speaks for all.
  finish(start(flags_for(workdir, tmp_path / 'one', *options), num_processes=1))
  record, vectors = load(tmp_path / 'two')
  expected_record, expected = load(tmp_path / 'one')
  # float32 sums over the sample in another order.
  np.testing.assert_allclose(
    record.eigenvalues, expected_record.eigenvalues, rtol=1e-5
  )
  np.testing.assert_allclose(abs(np.diag(vectors @ expected.T)), 1, atol=1e-5)
  np.testing.assert_allclose(
    record.mean_curvature, expected_record.mean_curvature, rtol=1e-5
  )
  assert record.report.sample_size == 101
  assert not (tmp_path / 'two/krylov').exists()


@pytest.mark.slow
def test_killed_processes_continue_together(workdir, tmp_path):
  options = ['--num_iterations', 300, '--max_vectors', 6]
  path = tmp_path / 'killed'
  processes = start(flags_for(workdir, path, *options))
  directory = path / 'krylov/first'
  deadline = time.monotonic() + TIMEOUT_SECONDS
  while len(list(directory.glob('process-*/state-0000[2-9]?.json'))) < 2:
    assert processes[0].poll() is None, processes[0].stderr.read()
    assert time.monotonic() < deadline
    time.sleep(0.01)
  for process in processes:
    process.send_signal(signal.SIGKILL)
    process.communicate()
  outputs = finish(start(flags_for(workdir, path, *options)))
  assert 'continuing after' in outputs[0][1]
  finish(start(flags_for(workdir, tmp_path / 'whole', *options)))
  assert load(path)[0].fingerprint == load(tmp_path / 'whole')[0].fingerprint


@pytest.mark.slow
def test_processes_leave_out_and_fail_together(workdir, tmp_path):
  flags = [
    *(
      '--task',
      'tests.kit.odd_tasks:make_task',
      '--task_arg',
      f'workdir={workdir}',
    ),
    *('--task_arg', 'numbers=nan_start', '--out', tmp_path),
    *('--projection_dim', 2, '--num_iterations', 3),
  ]
  for process in start(flags):
    _, errors = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 6, errors
    assert '15 of 303 sampled examples were rejected' in errors
  finish(start([*flags, '--max_rejected_fraction', 0.1]))
  report = stored_basis.load_record(str(tmp_path)).report
  assert (report.sample_size, len(report.rejected)) == (288, 15)


@pytest.mark.slow
def test_missing_environment_is_told_in_one_line(workdir, tmp_path):
  environment = {k: v for k, v in os.environ.items() if 'JAX_' not in k}
  done = subprocess.run(
    [
      sys.executable, '-m', 'launch', 'fit-basis', '--multi_process',
      *map(str, flags_for(workdir, tmp_path / 'b')),
    ],
    env=environment, capture_output=True, text=True, check=False,
  )  # fmt: skip
  assert done.returncode == 1
  [line] = done.stderr.splitlines()
  assert 'set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES' in line
