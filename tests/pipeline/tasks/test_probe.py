import datetime
import decimal

import numpy as np
import pytest

from influence_core import errors
from pipeline.storage import files as storage
from pipeline.tasks import probe as preprocessing_probe

EXAMPLES = [
  {
    'image': np.arange(12, dtype=np.uint8).reshape(2, 3, 2),
    'label': np.int64(7),
    'text': b'zwei Hunde',
    'id': 'a__1',
    'nested': {'lengths': [np.arange(3), np.arange(0)], 'score': 0.5},
    'words': np.array([[b'one', b'two'], [b'', b'x']], object),
  },
  {'image': np.zeros((0, 2), np.float32)},
  {
    'day': datetime.date(2026, 1, 3),
    'price': decimal.Decimal('1.50'),
    'pairs': [('a', None)],
    # As arrays of objects were once kept.
    'nested': {'objects': [1], 'shape': [1]},
  },
]


def assert_same(one, other):
  if isinstance(one, dict):
    assert one.keys() == other.keys()
    for key, value in one.items():
      assert_same(value, other[key])
  elif isinstance(one, list | tuple):
    for pair in zip(one, other, strict=True):
      assert_same(*pair)
  else:
    assert type(one) is type(other)
    np.testing.assert_array_equal(one, other)
    if isinstance(one, np.ndarray):
      assert one.dtype == other.dtype
      assert one.shape == other.shape


def test_examples_come_back_as_they_were():
  data = preprocessing_probe.encode(EXAMPLES)
  found = preprocessing_probe.decode('probe', data)
  assert_same(EXAMPLES, found)


def test_what_cannot_be_kept_is_named():
  with pytest.raises(
    errors.InputError,
    match=r'^image of example a__1 cannot be kept \(it holds builtins.object\)',
  ):
    preprocessing_probe.encode([{'image': [object()], 'tfds_id': 'a__1'}])


@pytest.mark.parametrize('data', [b'', b'\x93\x01\x02\x03', b'{"a": 1}'])
def test_other_bytes_are_refused(data):
  with pytest.raises(storage.DamagedFileError, match='holds no raw examples'):
    preprocessing_probe.decode('probe', data)
