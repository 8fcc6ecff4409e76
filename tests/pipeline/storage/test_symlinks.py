"""Links in a directory from elsewhere lead to no file outside of it."""

import shutil

import pytest

from influence_core import errors
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.storage import files as storage

SECRET = b'nobody is told this'


@pytest.fixture(name='outside')
def fixture_outside(tmp_path):
  path = tmp_path / 'outside'
  path.write_bytes(SECRET)
  return path


@pytest.fixture(name='own_index')
def fixture_own_index(index, tmp_path):
  return shutil.copytree(index, tmp_path / 'index')


@pytest.mark.parametrize('kind', ['vectors', 'rows'])
def test_what_a_shard_links_to_is_not_shown(
  influence, own_index, outside, kind
):
  file = min((own_index / 'shards').glob(f'{kind}-*'))
  file.unlink()
  file.symlink_to(outside)
  for command in ('verify', 'self-influence'):
    done = influence(command, '--index', own_index)
    assert done.status != 0
    assert SECRET.decode() not in done.stdout + done.stderr


def test_a_link_is_not_written_through(own_index, outside):
  """Not even where the next generation of an index will be."""
  made = manifest_lib.load(str(own_index))
  (own_index / 'manifest-000002.json').symlink_to(outside)
  (own_index / 'manifest-000003.json').symlink_to(outside.with_name('new'))
  with pytest.raises(errors.InputError):
    manifest_lib.publish(str(own_index), made.provenance, made.shards)
  with storage.open_for_writing(
    str(own_index / 'manifest-000002.json')
  ) as file:
    file.write(b'{}')
  assert outside.read_bytes() == SECRET
  assert not outside.with_name('new').exists()


def test_gc_deletes_links_alone(influence, own_index, outside):
  link = own_index / 'shards' / 'vectors-a-000000000-000000001-b-c.npy'
  link.symlink_to(outside)
  done = influence('gc', '--index', own_index, '--grace_hours', 0)
  assert done.status == 0
  assert not link.is_symlink()
  assert outside.read_bytes() == SECRET
  assert index_reader.Index(str(own_index)).num_examples == 303
