"""Engines of several processes, to run jobs on and to disturb."""

from collections.abc import Callable, Iterator
import contextlib
import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time

import psutil
import pytest

from influence_core import errors
from pipeline.beam import engine_files
from tests.conftest import ROOT


@dataclasses.dataclass(frozen=True)
class Servers:
  """What was started.

  Attributes:
    flags: of a command that is to run there.
    worker_pids: processes that do the work now.
  """

  flags: list[str]
  worker_pids: Callable[[], list[int]]


@contextlib.contextmanager
def portable() -> Iterator[Servers]:
  """Beam's job service and worker pool."""
  job_port = _free_port()
  service = 'apache_beam.runners.portability.local_job_service_main'
  with worker_pool() as pool, _module(service, '-p', job_port):
    _wait_for(job_port)
    flags = ['--engine', 'portable', '--']
    flags += [f'--job_endpoint=localhost:{job_port}', pool.flags[-1]]
    yield Servers(flags, pool.worker_pids)


@contextlib.contextmanager
def prism() -> Iterator[Servers]:
  """Prism, which each command starts for itself, and a worker pool."""
  install('prism')
  with worker_pool() as pool:
    flags = ['--engine', 'prism', '--', *pool.flags]
    yield Servers(flags, pool.worker_pids)


@contextlib.contextmanager
def prism_processes() -> Iterator[Servers]:
  """Prism, which starts workers of its own."""
  install('prism')
  program = shutil.which('influence-worker', path=f'{sys.prefix}/bin')
  flags = ['--engine', 'prism', '--', '--environment_type=PROCESS']
  yield Servers(
    [*flags, f'--environment_options=process_command={program}'], list
  )


@contextlib.contextmanager
def dask() -> Iterator[Servers]:
  """A scheduler and two worker processes."""
  distributed = pytest.importorskip('distributed')
  with distributed.LocalCluster(
    n_workers=2, threads_per_worker=1, dashboard_address=None
  ) as cluster:
    address = f'--dask_client_address={cluster.scheduler_address}'
    yield Servers(
      ['--engine', 'dask', '--', address],
      lambda: [nanny.pid for nanny in cluster.workers.values()],
    )


@contextlib.contextmanager
def embedded(engine: str) -> Iterator[Servers]:
  """Flink or Spark inside of its job server."""
  install(engine)
  yield Servers(
    ['--engine', engine], lambda: descendants('sdk_worker_main', os.getpid())
  )


@contextlib.contextmanager
def worker_pool() -> Iterator[Servers]:
  """A pool that starts a worker for whoever asks."""
  port = _free_port()
  program = shutil.which('influence-worker', path=f'{sys.prefix}/bin')
  with _module(
    'apache_beam.runners.worker.worker_pool_main',
    f'--service_port={port}',
    f'--container_executable={program}',
  ) as pool:
    _wait_for(port)
    flags = ['--environment_type=EXTERNAL']
    flags += [f'--environment_config=localhost:{port}']
    yield Servers(flags, lambda: descendants('sdk_worker_main', pool.pid))


def install(engine: str) -> None:
  """Skips the test where an engine cannot be had."""
  try:
    engine_files.install(engine)
  except errors.InputError as error:
    pytest.skip(str(error))


@contextlib.contextmanager
def _module(name: str, *arguments: object) -> Iterator[subprocess.Popen]:
  process = subprocess.Popen(
    [sys.executable, '-m', name, *map(str, arguments)],
    cwd=ROOT,
    stdout=subprocess.DEVNULL,
    stderr=subprocess.DEVNULL,
  )
  try:
    yield process
  finally:
    for child in psutil.Process(process.pid).children(recursive=True):
      with contextlib.suppress(psutil.NoSuchProcess):
        child.kill()
    process.kill()
    process.wait()


def descendants(word: str, pid: int) -> list[int]:
  """Processes below one whose command line has a word, shells left out."""
  found = []
  for process in psutil.Process(pid).children(recursive=True):
    with contextlib.suppress(psutil.NoSuchProcess):
      command = process.cmdline()
      if any(word in part for part in command) and command[0] != '/bin/sh':
        found.append(process.pid)
  return found


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('localhost', 0))
    return probe.getsockname()[1]


def _wait_for(port: int) -> None:
  for _ in range(300):
    with contextlib.suppress(OSError):
      socket.create_connection(('localhost', port)).close()
      return
    time.sleep(0.1)
  raise TimeoutError(f'nothing listens on port {port}')
