"""gs:// has the guarantees of a local directory, over a bad network too."""

import concurrent.futures

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.index import block_reader, reader as index_reader
from pipeline.search import retrieve
from pipeline.storage import files as storage
from tests.kit import object_store
from tests.kit.synthetic_index import QUERIES, VECTORS, make_index

pytestmark = pytest.mark.slow


def url(name):
  return f'gs://{object_store.BUCKET}/{name}'


def test_files_and_directories(store):
  assert storage.entries(url('d')) == {}
  assert not storage.exists(url('d/a'))
  assert storage.create_exclusive(url('d/a'), b'12345')
  assert storage.create_exclusive(url('d/e/b'), b'1')
  assert not storage.create_exclusive(url('d/a'), b'other')
  assert storage.read_bytes(url('d/a')) == b'12345'
  assert storage.read_range(url('d/a'), 1, 3) == b'23'
  assert storage.read_range(url('d/a'), 3, 9) == b'45'
  assert storage.read_range(url('d/a'), 7, 9) == b''
  found = storage.entries(url('d'))
  assert (found['a'].num_bytes, found['e'].is_directory) == (5, True)
  assert found['a'].modified > 1.7e9
  storage.check_writable(url('new'))
  storage.remove(url('d/a'))
  storage.remove(url('d/a'))
  storage.remove_directory(url('d'))
  assert storage.entries(url('d')) == {}
  with pytest.raises(storage.DamagedFileError, match='d/a is missing'):
    storage.read_bytes(url('d/a'))


@pytest.mark.parametrize('size', [1000, 60 * 2**20])
def test_of_racing_writers_one_wins(store, size):
  """Also of resumable uploads, which come in several parts."""
  contents = [bytes([number]) * size for number in range(4)]
  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    wins = list(
      pool.map(lambda data: storage.create_exclusive(url('a'), data), contents)
    )
  assert sum(wins) == 1
  assert storage.read_bytes(url('a')) == contents[wins.index(True)]


@pytest.mark.parametrize('fault', object_store.FAULTS)
def test_one_fault_is_survived(store, fault):
  data = np.random.default_rng(0).bytes(100_000)
  store.disturb_next(fault, 'POST')
  created = storage.create_exclusive(url('a'), data)
  # The store has it, though it says that somebody was faster: ourselves.
  assert created == (fault not in ('lost_reply', 'duplicate'))
  store.disturb_next(fault, 'GET')
  assert storage.read_bytes(url('a')) == data


def test_store_that_never_answers_is_told(store):
  for _ in range(6):
    store.disturb_next('503', 'GET')
  with pytest.raises(errors.InputError, match='a: the object store cannot'):
    storage.read_bytes(url('a'))


def test_command_on_a_store_that_never_answers(store, influence):
  for _ in range(1000):
    store.disturb_next('503', 'GET')
  failed = influence('verify', '--index', url('i'))
  assert 'the object store cannot be used' in failed.error_line


def assert_is_the_whole_index(path):
  index = index_reader.Index(path)
  np.testing.assert_array_equal(
    np.concatenate([block.vectors for block in index.read_blocks()]), VECTORS
  )
  return index


@pytest.mark.parametrize('seed', range(3))
def test_index_over_a_bad_network_is_the_same(store, tmp_path, seed):
  """A tenth of all requests fail, or are lost, repeated or slow."""
  store.disturb(0.1, seed)
  index = make_index(url('i'), 'float32')
  assert index.generation == 1
  assert_is_the_whole_index(url('i'))
  local = make_index(tmp_path, 'float32')
  options = ScoreOptions()
  found, expected = (
    retrieve.search(one, QUERIES, k=9, options=options)[None].proponents
    for one in (index, local)
  )
  np.testing.assert_array_equal(found.scores, expected.scores)
  np.testing.assert_array_equal(found.positions, expected.positions)


def test_large_shards_are_read_by_ranges_at_once(store, monkeypatch):
  make_index(url('i'), 'float32')
  monkeypatch.setattr(block_reader, '_PIECE_BYTES', 4000)
  for _ in range(20):
    store.disturb_next('slow_body', 'GET')
  store.most_at_once = 0
  assert_is_the_whole_index(url('i'))
  assert 2 <= store.most_at_once <= block_reader._REMOTE_READERS
  pieces = {request for request in store.requests if 'vectors-' in request[1]}
  assert len(pieces) > VECTORS.nbytes / 4000


def test_truncated_and_missing_objects_are_named(store, monkeypatch):
  monkeypatch.setattr(block_reader, '_PIECE_BYTES', 4000)
  index = make_index(url('i'), 'float32')
  shard = index.manifest.shards[0]
  path = url(f'i/shards/{shard.vectors.name}')
  data = storage.read_bytes(path)
  for damaged in (data[:-1], data[:5000], data[:10], b'', data + b'x'):
    storage.remove(path)
    storage.create_exclusive(path, damaged)
    with pytest.raises(storage.DamagedFileError, match=shard.vectors.name):
      assert_is_the_whole_index(url('i'))
  storage.remove(path)
  with pytest.raises(storage.DamagedFileError, match='is missing'):
    assert_is_the_whole_index(url('i'))


def test_commands(store, influence, task_flags, basis, index):
  """The whole way on gs://, disturbed, and what follows it."""
  store.disturb(0.05, seed=7)
  flags = ['--basis', basis, '--index', url('i'), '--range_size', 40]
  made = influence('project', *task_flags, *flags)
  assert made.status == 0, made.stderr
  assert 'Traceback' not in made.stderr
  again = influence('project', *task_flags, *flags)
  assert 'nothing to do' in again.stdout
  assert influence('verify', '--index', url('i')).status == 0
  query = ['--query_split', 'test[:3]', '--k', 5, '--json']
  found, expected = (
    influence('topk', *task_flags, '--index', path, *query).json['results']
    for path in (url('i'), index)
  )
  assert found == expected
  more = influence('project', *task_flags, *flags[:-1], 30)
  assert 'published generation 2' in more.stdout
  collected = influence('gc', '--index', url('i'), '--grace_hours', 0, '--json')
  assert collected.status == 0, collected.stderr
  listed = influence('generations', '--index', url('i'), '--json').json
  assert [row['generation'] for row in listed['generations']] == [2]
  assert influence('verify', '--index', url('i')).status == 0
