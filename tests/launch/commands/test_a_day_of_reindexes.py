"""Every hour `reindex`, while corpus, model and machine do what they do."""

import errno
import os
import shutil
import signal
import subprocess
import sys

from prometheus_client import parser
import pytest

from launch.output.exit_status import ExitStatus
from pipeline import load_arrays, save_arrays
from pipeline.bases import stored_basis
from pipeline.index import manifest as manifest_lib
from pipeline.storage import files as storage, run_lock
from tests.conftest import ROOT
from tests.kit import corpus_files, linear_task
from tests.pipeline.projection.test_random_kills import num_committed

KIND = 'npz'
OF_A_FILE = 60


class Day:
  """A corpus, a model and an index, and the command that a scheduler calls."""

  def __init__(self, influence, place):
    self._influence = influence
    self._place = place
    self.index = place / 'index'
    self._metrics = place / 'metrics.prom'
    self._files = place / 'files'
    self._files.mkdir()
    linear_task.prepare(place)

  def write(self, number, seed):
    """A file of the corpus, which may have been there with other examples."""
    x, y = linear_task.points(OF_A_FILE, seed)
    path = self._files / f'train-{number:05d}-of-00009.{KIND}'
    path.unlink(missing_ok=True)
    corpus_files.write_file(KIND, path, x, y)

  def remove(self, number):
    (self._files / f'train-{number:05d}-of-00009.{KIND}').unlink()

  def train_again(self):
    """Other parameters at the same place."""
    path = str(self._place / 'checkpoint')
    params = load_arrays(path)
    shutil.rmtree(path)
    save_arrays(path, {name: 1.5 * x for name, x in params.items()})

  def configure(self, fault=''):
    config = self._place / 'reindex.toml'
    config.write_text(
      f'task = "tests.kit.linear_task:make_task"\n'
      f'basis = "{self._place}/basis"\nindex = "{self.index}"\n'
      f'refit_basis = true\n[task_arg]\nworkdir = "{self._place}"\n'
      f'files = "{self._files}"\nfault = "{fault}"\n'
      '[project]\nrange_size = 20\n[gc]\nkeep = 2\ngrace_hours = 0\n'
    )
    return ['reindex', '--config', str(config), '--metrics_file', self._metrics]

  def fit(self):
    task = [
      *('--task', 'tests.kit.linear_task:make_task'),
      *('--task_arg', f'workdir={self._place}'),
      *('--task_arg', f'files={self._files}'),
    ]
    fit = ['--coordinates_per_layer', 4, '--sample_size', 64]
    done = self._influence(
      'fit-basis', *task, '--out', self._place / 'basis', *fit
    )
    assert done.status == 0, done.stderr

  def hour(self, status=ExitStatus.DONE, fault=''):
    """A run, whose status is checked, also in its metrics; its result."""
    done = self._influence(*self.configure(fault), '--json')
    assert done.status == status, done.stderr
    families = parser.text_string_to_metric_families(self._metrics.read_text())
    found = {x.name: x.value for family in families for x in family.samples}
    assert found['influence_exit_status'] == status
    if status != ExitStatus.DONE:
      assert done.error_line
      return None
    result = done.json
    assert result['verify']['sound']
    name = 'influence_result_project_num_examples'
    assert found[name] == result['project']['num_examples']
    return result

  @property
  def generations(self):
    return manifest_lib.generations(str(self.index))

  def kill_one(self):
    """A run that is killed once it has finished some ranges."""
    command = [str(x) for x in self.configure('slow_examples')]
    before = num_committed(self.index)
    with subprocess.Popen(
      [sys.executable, '-m', 'launch', *command],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    ) as process:
      while num_committed(self.index) < before + 2:
        assert process.poll() is None
      process.send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_every_hour_ends_as_it_must(influence, tmp_path, monkeypatch):
  day = Day(influence, tmp_path)
  for number in range(2):
    day.write(number, seed=number)
  day.fit()
  first = day.hour()['project']
  assert first['num_projected'] == 2 * OF_A_FILE
  assert day.generations == [1]

  # Nothing happens.
  assert day.hour()['project']['num_projected'] == 0
  assert day.generations == [1]

  # The corpus grows, a file changes, a file vanishes.
  day.write(2, seed=2)
  assert day.hour()['project']['num_projected'] == OF_A_FILE
  day.write(0, seed=10)
  changed = day.hour()['project']
  assert changed['num_projected'] == OF_A_FILE
  assert changed['num_ranges_reused'] == 2 * 3
  day.remove(1)
  gone = day.hour()['project']
  assert (gone['num_projected'], gone['num_examples']) == (0, 2 * OF_A_FILE)
  assert gone['num_ranges_dropped'] == 3
  # What is older than two generations was collected.
  assert day.generations == [3, 4]

  # A run is killed; the next one goes on where it was.
  for number in (3, 4):
    day.write(number, seed=number)
  day.kill_one()
  assert day.generations == [3, 4]
  after = day.hour()['project']
  assert 0 < after['num_projected'] < 2 * OF_A_FILE
  assert after['num_examples'] == 4 * OF_A_FILE

  # The machine that was killed holds no lock for ever; another run does now.
  with run_lock.hold(str(day.index), max_hours=1):
    day.hour(ExitStatus.OVERLAP)
  newest = day.generations

  # The disk is full in the middle of a run.
  day.write(5, seed=5)
  create, left = storage.create_exclusive, [4]

  def until_full(path, data):
    is_shard = '/shards/' in path
    left[0] -= is_shard
    if is_shard and left[0] < 0:
      reason = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
      raise storage.errors.InputError(
        f'cannot write {path} ({reason.strerror}); correct that'
      ) from reason
    return create(path, data)

  with monkeypatch.context() as patched:
    patched.setattr(storage, 'create_exclusive', until_full)
    day.hour(ExitStatus.FAILED)
  assert day.generations == newest
  assert day.hour()['project']['num_examples'] == 5 * OF_A_FILE

  # Too many examples of a file cannot be read, until it is written again.
  newest = day.generations
  day.write(6, seed=6)
  day.hour(ExitStatus.REJECTED, fault='bad_example')
  assert day.generations == newest
  day.write(6, seed=7)
  assert day.hour()['project']['num_examples'] == 6 * OF_A_FILE

  # The model is trained again: basis and index are made anew.
  fitted = stored_basis.load_record(f'{tmp_path}/basis')
  day.train_again()
  anew = day.hour()
  assert anew['project']['num_projected'] == 6 * OF_A_FILE
  again = stored_basis.load_record(anew['basis'])
  assert again.task_fingerprints != fitted.task_fingerprints
  assert again.config['coordinates_per_layer'] == 4
  assert len(day.generations) == 2
