import concurrent.futures
import errno
import os

import pytest

from influence_core import errors
from pipeline.storage import checked_files, files as storage


@pytest.fixture(params=['local', 'memory'])
def directory(request, tmp_path):
  if request.param == 'local':
    return str(tmp_path / 'store')
  return f'memory://{tmp_path.name}'


def test_create_exclusive_never_replaces(directory):
  path = storage.join(directory, 'a')
  assert storage.create_exclusive(path, b'first')
  assert not storage.create_exclusive(path, b'second')
  assert storage.read_bytes(path) == b'first'
  assert storage.list_names(directory) == ['a']
  assert storage.sizes(directory) == {'a': 5}


def test_of_racing_writers_one_wins(tmp_path):
  path = str(tmp_path / 'a')
  contents = [bytes([number]) * 100_000 for number in range(16)]
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    wins = list(
      pool.map(lambda data: storage.create_exclusive(path, data), contents)
    )
  assert sum(wins) == 1
  assert storage.read_bytes(path) == contents[wins.index(True)]
  assert os.listdir(tmp_path) == ['a']


def test_full_disk_leaves_nothing(tmp_path, monkeypatch):
  def full(descriptor):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(os, 'fsync', full)
  with pytest.raises(errors.InputError, match='No space left on device'):
    storage.create_exclusive(str(tmp_path / 'a'), b'data')
  assert os.listdir(tmp_path) == []


def test_missing_truncated_and_altered_files_are_named(directory):
  path = storage.join(directory, 'a')
  with pytest.raises(storage.DamagedFileError, match='a is missing'):
    storage.read_bytes(path)
  assert storage.list_names(directory) == []
  storage.create_exclusive(path, b'data')
  good = checked_files.checksum(b'data')
  assert (
    checked_files.read_checked(path, checked_files.StoredFile('a', 4, good))
    == b'data'
  )
  with pytest.raises(storage.DamagedFileError, match='4 bytes, expected 5'):
    checked_files.read_checked(path, checked_files.StoredFile('a', 5, good))
  with pytest.raises(storage.DamagedFileError, match='content was altered'):
    checked_files.read_checked(
      path, checked_files.StoredFile('a', 4, '00000000')
    )


def test_json_documents_carry_their_checksum(directory):
  path = storage.join(directory, 'a.json')
  content = {'x': [1.5, None], 'y': {'z': 'ä'}}
  storage.create_exclusive(path, checked_files.encode_json(content))
  assert checked_files.read_json(path) == content
  document = checked_files.encode_json(content)
  for cut in range(len(document)):
    check_refused(path + '2', document[:cut])
  for bit in range(8 * len(document)):
    flipped = bytearray(document)
    flipped[bit // 8] ^= 1 << bit % 8
    check_refused(path + '2', bytes(flipped))


def check_refused(path, damaged):
  storage.remove(path)
  storage.create_exclusive(path, damaged)
  with pytest.raises(storage.DamagedFileError, match='no complete JSON'):
    checked_files.read_json(path)


def test_unwritable_directory_is_refused(tmp_path):
  (tmp_path / 'file').write_text('x')
  with pytest.raises(errors.InputError, match='cannot write to '):
    storage.check_writable(str(tmp_path / 'file' / 'below'))
  storage.check_writable(str(tmp_path / 'fine'))
  assert os.listdir(tmp_path / 'fine') == []


def test_unknown_protocol_is_refused():
  with pytest.raises(errors.InputError, match='use a local path or gs://'):
    storage.exists('nonsense://bucket/a')


@pytest.mark.parametrize('error', [RuntimeError, KeyboardInterrupt, OSError])
def test_an_older_result_stays_until_the_new_one_is_whole(directory, error):
  path = storage.join(directory, 'result')
  with storage.open_for_writing(path) as file:
    file.write(b'old')
  expected = errors.InputError if error is OSError else error
  with pytest.raises(expected):
    _write_part_of(path, error)
  assert storage.read_bytes(path) == b'old'
  with storage.open_for_writing(path) as file:
    file.write(b'new')
  assert storage.read_bytes(path) == b'new'
  assert storage.list_names(directory) == ['result']


def _write_part_of(path, error):
  with storage.open_for_writing(path) as file:
    file.write(b'new, but only in p')
    raise error
