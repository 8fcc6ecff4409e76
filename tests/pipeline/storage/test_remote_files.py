"""Corpora, checkpoints and bases in an object store, and their local copies."""

import concurrent.futures
import itertools
import os
from pathlib import Path
import re
import shutil
import urllib.parse

from array_record.python import array_record_module
import numpy as np
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from influence_core import errors
from pipeline.corpora import record_files, tfds_corpus as corpus
from pipeline.storage import files as storage, machine_cache
from pipeline.tasks import checkpoints
from tests.kit import linear_task
from tests.pipeline.storage.test_object_store import url

pytestmark = pytest.mark.slow


def upload(directory: Path, name: str) -> None:
  for file in sorted(directory.rglob('*')):
    if file.is_file():
      path = url(f'{name}/{file.relative_to(directory).as_posix()}')
      assert storage.create_exclusive(path, file.read_bytes())


def num_bytes_read(store, name: str) -> int:
  """Bytes of an object that were asked for, by their Range headers."""
  return sum(
    int(match[2]) - int(match[1]) + 1
    for method, path, range_header in store.requests
    if method == 'GET' and name in urllib.parse.unquote(path)
    if (match := re.match(r'bytes=(\d+)-(\d+)', range_header or ''))
  )


@pytest.fixture(name='large_file')
def fixture_large_file(store, tmp_path):
  """An ArrayRecord file of 3,000 records of 1 kB, and those records."""
  generator = np.random.default_rng(0)
  records = [generator.bytes(1000) for _ in range(3000)]
  path = str(tmp_path / 'file.array_record')
  writer = array_record_module.ArrayRecordWriter(path, 'group_size:1')
  for record in records:
    writer.write(record)
  writer.close()
  storage.create_exclusive(url('file.array_record'), Path(path).read_bytes())
  return url('file.array_record'), records


def test_remote_corpus_is_the_local_one(store, workdir):
  upload(workdir / 'data', 'data')
  remote = corpus.TfdsCorpus('points', 'train[10:290]', url('data'))
  local = corpus.TfdsCorpus('points', 'train[10:290]', str(workdir / 'data'))
  remote.check()
  assert remote.source_shards() == local.source_shards()
  for shard in local.source_shards():
    pairs = zip(
      local.read_range(shard.name, shard.start, shard.stop),
      remote.read_range(shard.name, shard.start, shard.stop),
      strict=True,
    )
    for (expected_id, expected), (found_id, found) in pairs:
      assert found_id == expected_id
      np.testing.assert_array_equal(found['x'], expected['x'])


def test_range_costs_its_own_bytes(store, large_file):
  path, records = large_file
  size = len(b''.join(records))
  files = record_files.RecordFiles()
  positions = list(range(1000, 1300))
  assert files.read(path, positions) == [records[x] for x in positions]
  # Its tenth, the index at the end, and blocks of a quarter of a megabyte.
  assert num_bytes_read(store, 'file.array_record') < 0.5 * size
  before = num_bytes_read(store, 'file.array_record')
  assert files.read(path, positions) == [records[x] for x in positions]
  assert num_bytes_read(store, 'file.array_record') == before


def test_all_of_a_file_is_read_once(store, large_file):
  path, records = large_file
  files = record_files.RecordFiles()
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    parts = pool.map(
      lambda start: files.read(path, range(start, start + 500)),
      range(0, 3000, 500),
    )
    assert list(itertools.chain.from_iterable(parts)) == records
  identity = storage.entries(url(''))['file.array_record']
  assert num_bytes_read(store, 'file.array_record') == identity.num_bytes


def test_other_processes_of_a_machine_find_the_copy(store, large_file):
  path, records = large_file
  files = record_files.RecordFiles()
  assert files.read(path, [7]) == [records[7]]
  before = num_bytes_read(store, 'file.array_record')
  again = record_files.RecordFiles()
  assert again.read(path, [7]) == [records[7]]
  assert num_bytes_read(store, 'file.array_record') == before


def test_replaced_file_is_read_anew(store, large_file, tmp_path):
  path, records = large_file
  assert record_files.RecordFiles().read(path, [7]) == [records[7]]
  damaged = bytearray(storage.read_bytes(path))
  damaged[: len(damaged) // 2] = bytes(len(damaged) // 2)
  storage.remove(path)
  storage.create_exclusive(path, damaged)
  with pytest.raises(RuntimeError, match='hash mismatch'):
    record_files.RecordFiles().read(path, [7])


def test_missing_file_is_told(store):
  for path in (url('absent'), '/absent/file'):
    with pytest.raises(storage.DamagedFileError, match='is missing'):
      record_files.RecordFiles().read(path, [0])


def test_checkpoint_goes_there_and_comes_back(store):
  tree = {'a': np.arange(12.0).reshape(3, 4), 'b': {'c': np.float32(2)}}
  checkpoints.save_arrays(url('checkpoint'), tree)
  found = checkpoints.load_arrays(url('checkpoint'))
  np.testing.assert_array_equal(found['a'], tree['a'])
  assert found['b']['c'] == 2
  with pytest.raises(errors.InputError, match='already exists'):
    checkpoints.save_arrays(url('checkpoint'), tree)


def test_the_newest_finished_step_is_read(store, tmp_path):
  with ocp.CheckpointManager(tmp_path / 'steps') as manager:
    for step in (9, 10):
      tree = {'params': {'w': np.full(3, step)}, 'opt_state': np.ones(2)}
      manager.save(step, args=ocp.args.StandardSave(tree))
  upload(tmp_path / 'steps', 'steps')
  # Of a step that is still being written, the last files are missing.
  upload(tmp_path / 'steps' / '9' / 'default', 'steps/11/default')
  found = checkpoints.load_arrays(url('steps'), at='params')
  np.testing.assert_array_equal(found['w'], [10, 10, 10])


def test_weights_are_read(store, tmp_path):
  safetensors.numpy.save_file({'a.b': np.ones(2)}, tmp_path / 'w.safetensors')
  upload(tmp_path, 'weights')
  found = checkpoints.load_arrays(url('weights/w.safetensors'))
  np.testing.assert_array_equal(found['a']['b'], np.ones(2))


def test_directory_is_copied_once_and_checked(store, tmp_path):
  data = np.random.default_rng(0).bytes(20 << 20)
  storage.create_exclusive(url('d/e/large'), data)
  storage.create_exclusive(url('d/small'), b'1')
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    places = set(pool.map(machine_cache.local_directory, [url('d')] * 4))
  (place,) = places
  assert Path(place, 'e/large').read_bytes() == data
  assert Path(place, 'small').read_bytes() == b'1'
  assert num_bytes_read(store, 'd/e/large') == len(data)


def test_machines_start_at_different_pieces(store, tmp_path, monkeypatch):
  """So that no piece is asked for by all of a thousand at once."""
  storage.create_exclusive(url('d/large'), bytes(200 << 20))
  firsts = []
  for number in range(6):
    monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'm'))
    monkeypatch.setattr(
      machine_cache.socket, 'gethostname', lambda n=number: f'worker-{n}'
    )
    store.requests.clear()
    machine_cache.local_directory(url('d'))
    shutil.rmtree(tmp_path / 'm')
    firsts.append(next(r for _, _, r in store.requests if r))
  assert len(set(firsts)) > 3


def test_copy_that_arrives_altered_is_refused(store, monkeypatch):
  storage.create_exclusive(url('d/a'), b'12345678')
  monkeypatch.setattr(storage, 'read_range', lambda *_: b'12345679')
  with pytest.raises(storage.DamagedFileError, match='d/a has crc32c'):
    machine_cache.local_directory(url('d'))
  monkeypatch.undo()


def test_small_disk_makes_room_or_says_what_is_needed(store, monkeypatch):
  for name in ('old', 'recent'):
    storage.create_exclusive(url(f'{name}/a'), bytes(1000))
  old = Path(machine_cache.local_directory(url('old')))
  os.utime(old.parent, (0, 0))
  usage = shutil.disk_usage('/')
  full = usage._replace(free=10)
  monkeypatch.setattr(machine_cache.shutil, 'disk_usage', lambda _: full)
  with pytest.raises(errors.InputError, match='on the disk of'):
    machine_cache.local_directory(url('recent'))
  # What could go has gone before.
  assert not old.exists()


def test_copy_that_is_being_made_is_not_deleted(store, monkeypatch):
  """However long it takes."""
  for name in ('slow', 'new'):
    storage.create_exclusive(url(f'{name}/a'), bytes(1000))
  slow = Path(machine_cache.local_directory(url('slow'))).parent
  usage = shutil.disk_usage('/')
  full = usage._replace(free=10)
  monkeypatch.setattr(machine_cache.shutil, 'disk_usage', lambda _: full)
  with machine_cache.locked(slow):
    os.utime(slow, (0, 0))
    with pytest.raises(errors.InputError, match='on the disk of'):
      machine_cache.local_directory(url('new'))
    assert slow.exists()
  os.utime(slow, (0, 0))
  with pytest.raises(errors.InputError, match='on the disk of'):
    machine_cache.local_directory(url('new'))
  assert not slow.exists()


def test_whole_way_in_an_object_store(store, influence, workdir, tmp_path):
  """Task, corpus, basis and index there give the index of local files."""
  upload(workdir / 'data', 'w/data')
  upload(workdir / 'checkpoint', 'w/checkpoint')
  vectors = {}
  for place in (str(workdir), url('w')):
    task = ['--task', 'tests.kit.linear_task:make_task']
    task += ['--task_arg', f'workdir={place}']
    out = tmp_path if place == str(workdir) else url('out')
    flags = ['--projection_dim', 6, '--num_iterations', 6, '--json']
    fitted = influence('fit-basis', *task, '--out', f'{out}/basis', *flags)
    assert fitted.status == 0, fitted.stderr
    flags = ['--basis', f'{out}/basis', '--index', f'{out}/index']
    done = influence('project', *task, *flags, '--range_size', 40, '--json')
    assert done.status == 0, done.stderr
    assert done.json['num_examples'] == linear_task.NUM_TRAIN
    flags = ['--index', f'{out}/index', '--query_split', 'test', '--json']
    found = influence('topk', *task, *flags)
    assert found.status == 0, found.stderr
    vectors[place] = [row['score'] for row in found.json['results']]
  assert vectors[str(workdir)] == vectors[url('w')]
