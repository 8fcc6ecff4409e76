"""Arrays from bytes: those that were written, or a refusal without effort."""

import contextlib
import io
import tracemalloc
import zipfile

import hypothesis
from hypothesis import strategies
from hypothesis.extra import numpy as array_strategies
import numpy as np
import pytest

from influence_core import errors
from influence_core.devices import memory as device_memory
from pipeline.storage import array_bytes

# Of a process that reads a file of a few bytes, with room for its messages.
_FEW_BYTES = 1 << 20


def npy(array, **options):
  stream = io.BytesIO()
  np.lib.format.write_array(stream, array, allow_pickle=True, **options)
  return stream.getvalue()


def with_shape(shape, dtype="'<f8'", rest=b'\0' * 8):
  """A version 1.0 file with a header of one's own."""
  text = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"
  header = text.ljust(117).encode() + b'\n'
  return (
    b'\x93NUMPY\x01\x00' + len(header).to_bytes(2, 'little') + header + rest
  )


def refusal(data):
  """The error, once it was seen that next to no memory was taken."""
  tracemalloc.start()
  try:
    with pytest.raises(ValueError) as error:
      array_bytes.read_npy(data)
    assert tracemalloc.get_traced_memory()[1] < _FEW_BYTES
  finally:
    tracemalloc.stop()
  return str(error.value)


@pytest.mark.parametrize(
  'array',
  [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array(3, np.int8),
    np.empty((0, 4), np.float32),
    np.array([(True,)], [('Ā', '?')]),
    np.array(['a', 'bc']),
  ],
)
def test_reads_back_what_was_written(array):
  found = array_bytes.read_npy(npy(array))
  np.testing.assert_array_equal(found, array)
  assert found.dtype == array.dtype
  assert found.flags.writeable
  assert found.flags.f_contiguous == array.flags.f_contiguous


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (with_shape((10**15,)), 'has 8 bytes, expected 8000000000000000'),
    (with_shape((2**40, 2**40)), 'has 8 bytes, expected'),
    (with_shape((-1,)), 'have the shape'),
    (with_shape((1,), "'|O'"), 'Python objects'),
    (with_shape((1,), "[('a', '|O')]"), 'Python objects'),
    (with_shape((1,), "'none'"), 'none'),
    (with_shape((1,), '__import__("os")'), 'header'),
    (with_shape((2,)), 'has 8 bytes, expected 16'),
    (npy(np.array([{}], object)), 'Python objects'),
    (b'\x93NUMPY\x09\x00', 'version'),
    (b'\x93NUMPY\x03\x00\xff\xff\xff\x7f{', 'bytes'),
    (b'\x93NUMPY\x03\x00\x02\x00\x00\x00{', 'damaged'),
    (b'', 'magic'),
  ],
)
def test_lies_are_refused(data, message):
  assert message in refusal(data)


def write_npz(path, arrays):
  path.write_bytes(array_bytes.encode_npz(arrays))
  return str(path)


def test_npz_reads_back(tmp_path):
  arrays = {'a': np.arange(3), 'b/c': np.ones((2, 2))}
  found = array_bytes.read_npz(write_npz(tmp_path / 'x.npz', arrays))
  assert found.keys() == arrays.keys()
  for name, array in arrays.items():
    np.testing.assert_array_equal(found[name], array)


def test_bomb_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
  path = tmp_path / 'bomb.npz'
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
    archive.writestr('a.npy', npy(np.zeros(1 << 24)))
  assert path.stat().st_size < 1 << 18
  monkeypatch.setattr(device_memory, 'host_bytes', lambda: 1 << 24)
  with pytest.raises(errors.InputError, match=r'bomb\.npz would take 0\.1 GB'):
    array_bytes.read_npz(str(path))


@hypothesis.given(strategies.data())
@hypothesis.settings(deadline=None)
def test_any_damage_is_refused_or_read(data):
  """Bytes changed, cut or added anywhere in files of any arrays."""
  shapes = array_strategies.array_shapes(max_dims=3, max_side=4)
  array = data.draw(
    array_strategies.arrays(array_strategies.scalar_dtypes(), shapes)
  )
  content = bytearray(npy(array))
  for _ in range(data.draw(strategies.integers(1, 4))):
    place = data.draw(strategies.integers(0, max(0, len(content) - 1)))
    content[place : place + data.draw(strategies.integers(0, 2))] = data.draw(
      strategies.binary(max_size=3)
    )
  with contextlib.suppress(ValueError):
    array_bytes.read_npy(bytes(content))


@hypothesis.given(place=strategies.integers(0, 400), value=strategies.binary())
@hypothesis.settings(
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_any_damage_of_an_archive_is_one_error(tmp_path, place, value):
  path = tmp_path / 'x.npz'
  content = bytearray(array_bytes.encode_npz({'a': np.arange(9)}))
  content[place : place + len(value)] = value
  path.write_bytes(content)
  with contextlib.suppress(errors.InputError):
    array_bytes.read_npz(str(path))
