"""Fixtures shared by all tests: a small corpus, its basis and its index."""

import asyncio
import dataclasses
import json
import os
from pathlib import Path
import tempfile
import types

import fsspec
import hypothesis
import jax
import pytest

from launch import cli
from pipeline.storage import machine_cache
from tests.kit import devices as device_runs, linear_task, object_store

ROOT = device_runs.ROOT
_COMPILED = 'JAX_COMPILATION_CACHE_DIR'
# How long an example takes says how busy the machine is. `--hypothesis-profile
# long` looks for hours where the tests look for a moment.
hypothesis.settings.register_profile('usual', deadline=None)
hypothesis.settings.register_profile('long', deadline=None, max_examples=10**6)
hypothesis.settings.load_profile('usual')


def pytest_configure(config):
  """Compiles in haste, and once for all tests, workers and processes."""
  flags = os.environ.get('XLA_FLAGS', '')
  if device_runs.HASTY not in flags:
    os.environ['XLA_FLAGS'] = f'{flags} {device_runs.HASTY}'.strip()
  if _COMPILED in os.environ:  # As told, or by the process that started this.
    return
  kept = tempfile.TemporaryDirectory(prefix='compiled_')
  config.add_cleanup(kept.cleanup)
  for name, value in (
    (_COMPILED, kept.name),
    ('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', 0.1),
  ):
    os.environ[name] = str(value)
    jax.config.update(name.lower(), value)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
  """One worker more than cores: tests wait for processes of their own."""
  del config
  return (os.cpu_count() or 1) + 1


def pytest_addoption(parser):
  parser.addoption(
    '--scale', action='store_true', help='run what takes minutes, too'
  )


def pytest_collection_modifyitems(config, items):
  """Passes over what takes minutes, unless it is asked for."""
  if config.getoption('--scale'):
    return
  for item in items:
    if item.get_closest_marker('scale'):
      item.add_marker(pytest.mark.skip(reason='takes minutes: give --scale'))


@dataclasses.dataclass(frozen=True)
class Outcome:
  """What a command left behind."""

  status: int
  stdout: str
  stderr: str

  @property
  def json(self):
    return json.loads(self.stdout)

  @property
  def error_line(self) -> str:
    """The one line of an error, checked to be one line without traceback."""
    lines = [line for line in self.stderr.splitlines() if 'error: ' in line]
    assert self.status != 0
    assert 'Traceback' not in self.stderr
    assert len(lines) == 1, self.stderr
    return lines[0]


@pytest.fixture
def influence(capfd):
  """Runs a command line in this process."""

  def run(*arguments) -> Outcome:
    capfd.readouterr()
    try:
      status = cli.main([str(argument) for argument in arguments])
    except SystemExit as stop:  # argparse leaves by itself.
      status = stop.code
    return Outcome(status, *capfd.readouterr())

  return run


@pytest.fixture
def influence_process():
  """Runs a command line in a process of its own, with its own devices."""

  def run(*arguments, devices: int = 1) -> Outcome:
    done = device_runs.run_module('launch', *arguments, num_devices=devices)
    return Outcome(done.returncode, done.stdout, done.stderr)

  return run


@pytest.fixture(scope='session')
def workdir(tmp_path_factory) -> Path:
  """A prepared corpus of 303 examples in 3 files, and fitted parameters."""
  path = tmp_path_factory.mktemp('linear')
  linear_task.prepare(path)
  return path


@pytest.fixture(scope='session')
def task_flags(workdir) -> list[str]:
  return [
    '--task',
    'tests.kit.linear_task:make_task',
    '--task_arg',
    f'workdir={workdir}',
  ]


@pytest.fixture(scope='session')
def basis(workdir, task_flags) -> Path:
  path = workdir / 'basis'
  flags = ['--projection_dim', '6', '--num_iterations', '6']
  assert (
    cli.main(['fit-basis', *task_flags, '--out', str(path), *flags, '--json'])
    == 0
  )
  return path


@pytest.fixture(scope='session')
def index(workdir, task_flags, basis) -> Path:
  """Published; tests that change an index make their own."""
  path = workdir / 'index'
  flags = ['--basis', str(basis), '--index', str(path), '--range_size', '40']
  assert cli.main(['project', *task_flags, *flags, '--json']) == 0
  return path


@pytest.fixture(name='store')
def fixture_store(monkeypatch, tmp_path):
  """gs:// on this machine; what is copied from there is in `tmp_path`."""
  store = object_store.ObjectStore()
  settings = {'endpoint_url': store.endpoint, 'token': 'anon', 'project': 'p'}
  monkeypatch.setitem(fsspec.config.conf, 'gs', settings)
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'cache'))
  # Pauses between attempts a thousand times shorter.
  quick = types.SimpleNamespace(
    **{**vars(asyncio), 'sleep': lambda s: asyncio.sleep(s / 1000)}
  )
  monkeypatch.setattr('gcsfs.retry.asyncio', quick)
  yield store
  store.close()
