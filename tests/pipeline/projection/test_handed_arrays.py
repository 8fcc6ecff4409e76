"""Arrays through a file: the same, and no file is left."""

import os

import ml_dtypes
import numpy as np
import pytest

from pipeline.projection import handed_arrays

ARRAYS = {
  'one': [np.arange(3 << 18, dtype=np.float32).reshape(3, 512, 512)],
  'several': [
    np.ones((1000, 300), np.float64),
    np.arange(7, dtype=np.int8),
    np.array(2.5, ml_dtypes.bfloat16),
    np.zeros((0, 4), np.int32),
  ],
  'not contiguous': [np.arange(1 << 20).reshape(1024, 1024).T],
}


@pytest.mark.parametrize('name', ARRAYS)
def test_they_come_as_they_were(name, tmp_path):
  handed = handed_arrays.hand_over(ARRAYS[name], str(tmp_path))
  assert isinstance(handed, handed_arrays.HandedArrays)
  found = handed_arrays.take(handed)
  assert os.listdir(tmp_path) == []
  for one, other in zip(found, ARRAYS[name], strict=True):
    np.testing.assert_array_equal(one, other)
    assert one.dtype == other.dtype
    assert one.flags.writeable


def test_small_ones_stay(tmp_path):
  arrays = [np.arange(9)]
  assert handed_arrays.hand_over(arrays, str(tmp_path))[0] is arrays[0]
  assert handed_arrays.take(arrays) is arrays
  assert os.listdir(tmp_path) == []


def test_full_disk_leaves_them_where_they_are(tmp_path, monkeypatch):
  def fail(file, left):
    file.write(left[:1000])
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(handed_arrays, '_write', fail)
  found = handed_arrays.hand_over(ARRAYS['one'], str(tmp_path))
  assert found[0] is ARRAYS['one'][0]
  assert os.listdir(tmp_path) == []


def test_directory_goes_with_its_object():
  directory = handed_arrays.make_directory()
  assert os.path.isdir(directory.name)
  directory.cleanup()
  assert not os.path.exists(directory.name)
