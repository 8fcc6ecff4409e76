""".npy and .npz: columns by the names of files, all dtypes, and damage."""

import os
from pathlib import Path
import zipfile

import numpy as np
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.corpora import array_files, file_names
from pipeline.storage import machine_cache

NUMBERS = np.arange(24.0).reshape(6, 4)


@pytest.fixture(autouse=True, name='cache')
def fixture_cache(monkeypatch, tmp_path):
  path = tmp_path / 'cache'
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(path))
  return path


@pytest.fixture(name='directory')
def fixture_directory(tmp_path):
  path = tmp_path / 'arrays'
  path.mkdir()
  return path


def save(directory: Path, **arrays) -> str:
  for name, array in arrays.items():
    np.save(directory / f'{name}.npy', array, allow_pickle=False)
  return str(directory)


def rows_of(corpus, positions):
  return [raw for _, raw in corpus.read_positions(positions)]


@pytest.mark.parametrize(
  ('name', 'split', 'column', 'shard'),
  [
    ('x_train.npy', 'train', 'x', 'train.npy'),
    ('test-labels.npy', 'test', 'labels', 'test.npy'),
    ('val/x.y.npy', 'val', 'x.y', 'val.npy'),
    ('d/train.npy', 'train', 'array', 'train.npy'),
    ('embeddings.npy', 'train', 'embeddings', 'train.npy'),
    ('trainer.npy', 'train', 'trainer', 'train.npy'),
    (
      'x_test-00001-of-00002.npy',
      'test',
      'x',
      'test-00001-of-00002.npy',
    ),
  ],
)
def test_names_say_split_and_column(name, split, column, shard):
  assert file_names.split_of(name) == split
  assert file_names.column_of(f'/a/train_{"b"}/{name}') == column
  assert file_names.shard_of(name) == shard


def test_files_are_columns_of_the_same_rows(directory):
  path = save(
    directory,
    x_train=NUMBERS,
    y_train=np.arange(6),
    x_test=NUMBERS[:2],
    y_test=np.arange(2),
  )
  train = FileCorpus(path)
  [first, last] = rows_of(train, [0, 5])
  assert first.keys() == {'x', 'y', 'tfds_id'}
  np.testing.assert_array_equal(last['x'], NUMBERS[5])
  assert (last['y'], last['tfds_id']) == (5, 'train.npy__5')
  assert train.with_split('test').num_examples == 2
  [raw] = rows_of(FileCorpus(path, columns=('y',)), [3])
  assert raw == {'y': 3, 'tfds_id': 'train.npy__3'}
  [raw] = rows_of(FileCorpus(f'{path}/y_test.npy', 'test'), [1])
  assert raw == {'y': 1, 'tfds_id': 'test.npy__1'}
  before = train.shard_fingerprint('train.npy')
  test_before = train.shard_fingerprint('test.npy')
  os.utime(directory / 'y_train.npy', (1, 1))
  assert train.shard_fingerprint('train.npy') != before
  assert train.shard_fingerprint('test.npy') == test_before


@pytest.mark.parametrize(
  ('arrays', 'columns', 'message'),
  [
    ({'x': NUMBERS, 'y': NUMBERS[:5]}, (), 'expected as many in each file'),
    ({'x_train': NUMBERS, 'train-x': NUMBERS}, (), 'expected one file for'),
    ({'x': NUMBERS}, ('z',), 'no column z; it has x'),
    ({'x': np.float32(3)}, (), 'expected one length'),
    ({'x': NUMBERS[:0]}, (), 'holds no example'),
  ],
)
def test_arrays_that_do_not_fit_are_refused(
  directory, arrays, columns, message
):
  with pytest.raises(errors.InputError, match=message):
    FileCorpus(save(directory, **arrays), columns=columns).check()


ARRAYS = {
  'fortran': np.asfortranarray(NUMBERS),
  'big_endian': NUMBERS.astype('>i4'),
  'dates': NUMBERS[:, 0].astype('datetime64[D]'),
  'texts': np.array(['a', 'ä', 'ccc', '', 'e', 'f']),
  'records': np.array([(x, 2.5) for x in range(6)], [('a', 'i4'), ('b', 'f8')]),
  'nothing': np.empty((6, 0, 3)),
  'many': np.arange(720, dtype=np.uint8).reshape(6, 2, 3, 20),
}


@pytest.mark.parametrize('kind', ['npy', 'stored', 'compressed'])
def test_rows_are_those_of_the_arrays(directory, cache, kind):
  path = str(directory)
  if kind == 'npy':
    save(directory, **ARRAYS)
  elif kind == 'stored':
    np.savez(directory / 'a.npz', **ARRAYS)
  else:
    np.savez_compressed(directory / 'a.npz', **ARRAYS)
  corpus = FileCorpus(path)
  corpus.check()
  assert not cache.exists()
  positions = [5, 0, 3, 3]
  found = rows_of(corpus, positions)
  for name, array in ARRAYS.items():
    for raw, position in zip(found, positions, strict=True):
      np.testing.assert_array_equal(raw[name], array[position])
      assert raw[name].dtype == array[position].dtype
  found[2]['many'][:] = 0  # As preprocessing may do.
  np.testing.assert_array_equal(found[3]['many'], ARRAYS['many'][3])
  assert cache.exists() == (kind == 'compressed')
  if kind == 'compressed':
    some = FileCorpus(path, columns=('dates',))
    assert rows_of(some, [1])[0].keys() == {'dates', 'tfds_id'}
    assert len([*cache.glob('*/array-*')]) == len(ARRAYS)


def test_arrays_are_mapped_not_loaded(directory):
  """Those of .npz, too, where they are stored as they are."""
  np.savez(directory / 'a.npz', x=NUMBERS)
  np.save(directory / 'b.npy', NUMBERS)
  for reader, name in (
    (array_files.NpzRows(()), 'a.npz'),
    (array_files.NpyRows(()), 'b.npy'),
  ):
    [array] = reader._map(str(directory / name)).arrays.values()
    while isinstance(array.base, np.ndarray):
      array = array.base
    assert isinstance(array, np.memmap)


class Unpickled:
  def __reduce__(self):
    return os.abort, ()


@pytest.mark.parametrize('kind', ['npy', 'npz'])
def test_objects_are_never_unpickled(directory, kind):
  array = np.array([Unpickled()] * 6, object)
  path = directory / f'x.{kind}'
  if kind == 'npy':
    np.save(path, array, allow_pickle=True)
  else:
    np.savez(path, x=array)
  with pytest.raises(errors.InputError, match='Python objects, which are not'):
    FileCorpus(str(path)).check()


@pytest.mark.parametrize('kind', ['npy', 'stored', 'compressed'])
def test_damage_is_told_in_a_line(directory, kind):
  path = directory / ('x.npy' if kind == 'npy' else 'x.npz')
  if kind == 'npy':
    np.save(path, NUMBERS)
  else:
    way = zipfile.ZIP_STORED if kind == 'stored' else zipfile.ZIP_DEFLATED
    np.save(directory / 'x.tmp.npy', NUMBERS)
    with zipfile.ZipFile(path, 'w', way) as archive:
      archive.write(directory / 'x.tmp.npy', 'x.npy')
    os.unlink(directory / 'x.tmp.npy')
  corpus = FileCorpus(str(path))
  corpus.check()
  assert len(rows_of(corpus, [1])) == 1
  os.truncate(path, path.stat().st_size - 20)
  with pytest.raises(errors.InputError, match='leave it as it is'):
    rows_of(corpus, [1])
  with pytest.raises(errors.InputError, match='of arrays'):
    rows_of(FileCorpus(str(path)), [1])
