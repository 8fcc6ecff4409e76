"""The one command that a scheduler calls, and what its statuses say."""

import concurrent.futures
import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from launch.output.exit_status import ExitStatus
from pipeline.bases import stored_basis
from pipeline.index import reader as index_reader
from pipeline.storage import checked_files, files as storage, run_lock
from pipeline.upkeep import refitted_bases
from tests.conftest import ROOT
from tests.kit import linear_task


@pytest.fixture(name='reindex')
def fixture_reindex(influence, workdir, basis, tmp_path):
  """Writes a configuration and runs it."""

  def run(
    *, expected=ExitStatus.DONE, fault='', top='', project='', more='',
    basis=basis,
  ):  # fmt: skip
    (tmp_path / 'c.toml').write_text(
      f'task = "tests.kit.linear_task:make_task"\nbasis = "{basis}"\n'
      f'index = "{tmp_path / "i"}"\n{top}\n'
      f'[task_arg]\nworkdir = "{workdir}"\nfault = "{fault}"\n'
      f'[project]\nrange_size = 40\n{project}\n{more}'
    )
    done = influence('reindex', '--config', tmp_path / 'c.toml', '--json')
    assert done.status == expected, done.stderr
    return done

  return run


def test_index_is_brought_up_to_date(reindex, tmp_path):
  first = reindex().json
  assert first['project']['num_projected'] == linear_task.NUM_TRAIN
  assert first['verify']['sound']
  again = reindex(more='[gc]\nkeep = 1').json
  assert again['project']['num_projected'] == 0
  assert again['gc']['generations'] == []


def test_result_is_announced(reindex, tmp_path):
  program = [sys.executable, '-c']
  program += [
    f'import sys; open("{tmp_path}/told", "w").write(sys.stdin.read())'
  ]
  done = reindex(top=f'announce = {json.dumps(program)}').json
  assert json.loads((tmp_path / 'told').read_text()) == done
  failed = reindex(top='announce = ["false"]', expected=ExitStatus.FAILED)
  assert 'could not be announced' in failed.error_line


def test_other_run_keeps_away(reindex, tmp_path):
  with run_lock.hold(str(tmp_path / 'i'), max_hours=1):
    line = reindex(expected=ExitStatus.OVERLAP).error_line
    assert f'process {os.getpid()} of ' in line
    # What was killed counts only so long.
    reindex(top='lock_hours = 0')
  reindex()


def test_lock_of_a_killed_run_on_this_machine_is_free(tmp_path):
  """Nobody waits for a day; of another machine one cannot know."""
  code = (
    'import os, signal; from pipeline.storage import run_lock\n'
    f'with run_lock.hold({str(tmp_path)!r}, 1):\n'
    '  os.kill(os.getpid(), signal.SIGKILL)'
  )

  def kill_one():
    subprocess.run([sys.executable, '-c', code], cwd=ROOT)

  kill_one()
  with run_lock.hold(str(tmp_path), max_hours=1):
    pass
  kill_one()
  [lock] = (tmp_path / 'locks').glob('run-000003.json')
  content = checked_files.read_json(str(lock))
  for other in ({'machine': 'x/1'}, {'machine': ''}):
    lock.write_bytes(checked_files.encode_json({**content, **other}))
    with (
      pytest.raises(run_lock.OverlapError, match='is at work since'),
      run_lock.hold(str(tmp_path), max_hours=1),
    ):
      pass
  # A later process has the number of the one that was killed.
  alive = {'process': os.getpid(), 'process_started': '1'}
  lock.write_bytes(checked_files.encode_json({**content, **alive}))
  with run_lock.hold(str(tmp_path), max_hours=1):
    pass


@pytest.mark.slow
def test_lock_is_held_by_one(tmp_path):
  def take(_):
    try:
      with run_lock.hold(str(tmp_path), max_hours=1):
        time.sleep(0.5)
      return True
    except run_lock.OverlapError:
      return False

  for _ in range(3):
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      assert sum(pool.map(take, range(8))) == 1
  # One pair of files stays, whoever ran.
  assert len(os.listdir(tmp_path / 'locks')) == 2


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'process': 'x'}, "process is 'x'"),
    ({'started': 'now'}, 'isoformat'),
    ({'started': '2026-01-01T00:00:00'}, 'has no time zone'),
    ({'host': None}, 'host is None'),
  ],
)
def test_lock_that_was_not_written_here_is_refused(tmp_path, changed, message):
  holder = {'host': 'h', 'process': 1, 'started': '2026-01-01T00:00:00+00:00'}
  path = tmp_path / 'locks' / 'run-000001.json'
  path.parent.mkdir()
  path.write_bytes(checked_files.encode_json(holder | changed))
  with (
    pytest.raises(storage.DamagedFileError, match=message),
    run_lock.hold(str(tmp_path), max_hours=1),
  ):
    pass


def test_lock_in_an_object_store(store):
  index = 'gs://bucket/index'
  with (
    run_lock.hold(index, max_hours=1),
    pytest.raises(run_lock.OverlapError, match='is at work since'),
    run_lock.hold(index, max_hours=1),
  ):
    pass
  store.disturb_next('lost_reply', 'POST')
  with run_lock.hold(index, max_hours=1):
    pass
  assert len(storage.list_names(f'{index}/locks')) == 2


@pytest.mark.slow
def test_stale_basis_fails_or_is_fitted_again(reindex, basis):
  line = reindex(fault='other_paths', expected=ExitStatus.STALE).error_line
  assert 'selected paths' in line
  done = reindex(fault='other_paths', top='refit_basis = true').json
  assert done['basis'].startswith(f'{basis}-')
  index = index_reader.Index(done['index'])
  assert index.manifest.provenance.basis == done['basis']
  again = reindex(fault='other_paths', top='refit_basis = true').json
  assert again['project']['num_projected'] == 0


@pytest.mark.slow
@pytest.mark.parametrize(
  ('command', 'flags'),
  [
    ('fit-basis', ['--coordinates_per_layer', 4, '--directions', 'whitened']),
    ('random-basis', ['--projection_dim', 4]),
  ],
)
def test_any_basis_of_another_model(
  reindex, influence, task_flags, tmp_path, command, flags
):
  """Subspaces are fitted again as they were; what is not fitted is told."""
  basis = tmp_path / 'other'
  made = influence(command, *task_flags, '--out', basis, *flags)
  assert made.status == 0, made.stderr
  assert reindex(basis=basis).json['basis'] == str(basis)
  again = {'fault': 'other_paths', 'top': 'refit_basis = true', 'basis': basis}
  if command == 'random-basis':
    line = reindex(expected=ExitStatus.FAILED, **again).error_line
    assert 'was not made by fit-basis' in line
    return
  done = reindex(**again).json
  one, other = map(stored_basis.load_record, (str(basis), str(done['basis'])))
  names = ('coordinates_per_layer', 'directions', 'shrinkage')
  for name in names:
    assert one.config[name] == other.config[name]
  assert one.task_fingerprints != other.task_fingerprints


@pytest.mark.slow
def test_bases_of_older_models_are_collected(reindex, basis, tmp_path):
  copy = tmp_path / 'bases' / 'b'
  shutil.copytree(basis, copy)

  def run(fault):
    return reindex(
      fault=fault,
      top='refit_basis = true',
      more='[gc]\nkeep = 1\ngrace_hours = 0',
      basis=copy,
    ).json

  first = run('other_paths')
  assert first['removed_bases'] == []
  # Another index may need a basis longer than this one.
  shared = run('other_reduction')
  assert shared['removed_bases'] == [first['basis']]
  refitted_bases.claim(shared['basis'], 'gs://bucket/other')
  assert run('other_preprocessing')['removed_bases'] == []
  left = {path.name for path in copy.parent.iterdir()}
  assert {'b', os.path.basename(shared['basis'])} < left
  assert os.path.basename(first['basis']) not in left


def test_damage_is_found(reindex, tmp_path):
  index = reindex().json['index']
  shards = tmp_path / 'i' / 'shards'
  file = next(x for x in shards.iterdir() if x.name.startswith('vectors'))
  data = bytearray(file.read_bytes())
  data[-1] ^= 1
  file.write_bytes(data)
  line = reindex(expected=ExitStatus.DAMAGED).error_line
  assert index in line
  assert file.name in line
  reindex(top='verify = false')


@pytest.mark.slow
def test_too_many_rejected(reindex):
  line = reindex(fault='bad_example', expected=ExitStatus.REJECTED).error_line
  assert 'more than the allowed fraction' in line
  reindex(fault='bad_example', project='max_rejected_fraction = 0.1')


@pytest.mark.parametrize(
  ('where', 'text', 'status', 'message'),
  [
    ('top', 'refit = true', ExitStatus.FAILED, 'did you mean refit_basis'),
    ('top', 'verify = 3', ExitStatus.FAILED, 'expected true or false'),
    ('top', 'x =', ExitStatus.FAILED, 'is no TOML file'),
    ('project', 'rangesize = 3', ExitStatus.USAGE, 'did you mean --range_size'),
    ('project', 'beam = ["--ruNner"]', ExitStatus.FAILED, 'is no Beam option'),
    ('more', '[gc]\nkeepp = 3', ExitStatus.USAGE, 'did you mean --keep'),
  ],
)
def test_mistakes_are_told(reindex, where, text, status, message):
  assert message in reindex(**{where: text}, expected=status).error_line


def test_configuration_must_be_there_and_whole(influence, tmp_path):
  found = influence('reindex', '--config', tmp_path / 'absent')
  assert found.status == ExitStatus.FAILED
  (tmp_path / 'c').write_text('task = "a:b"')
  found = influence('reindex', '--config', tmp_path / 'c')
  assert 'lacks basis' in found.error_line


@pytest.mark.slow
def test_of_two_at_once_one_works(workdir, basis, tmp_path):
  (tmp_path / 'c').write_text(
    f'task = "tests.kit.linear_task:make_task"\nbasis = "{basis}"\n'
    f'index = "{tmp_path / "i"}"\n'
    f'[task_arg]\nworkdir = "{workdir}"\nfault = "slow_examples"\n'
  )
  command = [sys.executable, '-m', 'launch', 'reindex']
  runs = [
    subprocess.Popen(
      [*command, '--config', tmp_path / 'c'],
      cwd=ROOT,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    for _ in range(2)
  ]
  statuses = sorted(run.wait(timeout=120) for run in runs)
  assert statuses == [ExitStatus.DONE, ExitStatus.OVERLAP]
