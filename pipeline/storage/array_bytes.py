"""Arrays from bytes that anyone may have written: nothing is executed.

A header is believed only as far as the bytes behind it go, so that no memory is
allocated for an array that is not there.
"""

import ast
from collections.abc import Callable, Mapping
import io
import math
import struct
from typing import IO, Any, Literal, NamedTuple
import zipfile
import zlib

import numpy as np

from influence_core.devices import memory as device_memory
from pipeline.storage import files as storage

# As numpy limits what it parses of a foreign file.
_MAX_HEADER_BYTES = 10_000
# What damaged or foreign content makes the readers of numpy and zip raise.
_DAMAGES = (
  ValueError,
  LookupError,
  EOFError,
  NotImplementedError,
  RuntimeError,
  zlib.error,
  zipfile.BadZipFile,
)


def _read_header_3_0(stream: IO[bytes]) -> tuple[Any, bool, np.dtype]:
  """That of fields with names beyond Latin 1, which numpy has no reader of."""
  [length] = struct.unpack('<I', stream.read(4))
  if length > _MAX_HEADER_BYTES:
    raise ValueError(f'its header has {length} bytes')
  content = ast.literal_eval(stream.read(length).decode())
  dtype = np.lib.format.descr_to_dtype(content['descr'])
  return tuple(map(int, content['shape'])), content['fortran_order'], dtype


_HEADERS: Mapping[tuple[int, int], Callable[[IO[bytes]], Any]] = {
  (1, 0): np.lib.format.read_array_header_1_0,
  (2, 0): np.lib.format.read_array_header_2_0,
  (3, 0): _read_header_3_0,
}


class Header(NamedTuple):
  """What a .npy file begins with."""

  shape: tuple[int, ...]
  is_fortran: bool
  dtype: np.dtype

  @property
  def num_bytes(self) -> int:
    """Of the entries behind it."""
    return math.prod(self.shape) * self.dtype.itemsize


def read_header(stream: IO[bytes]) -> Header:
  """The header of a .npy file, after which its entries follow.

  Raises:
    ValueError: It is none, or one of Python objects.
  """
  version = np.lib.format.read_magic(stream)
  if version not in _HEADERS:
    raise ValueError(f'its arrays are of version {version}')
  try:
    header = Header(*_HEADERS[version](stream))
  except Exception as error:  # Whatever a parser raises for damaged text.
    raise ValueError(f'its header is damaged ({error})') from error
  if header.dtype.hasobject:
    raise ValueError('it holds Python objects, which are not read')
  if min(header.shape, default=0) < 0:
    raise ValueError(f'its arrays have the shape {header.shape}')
  return header


def read_npy(data: bytes) -> np.ndarray:
  """The array of a .npy file, which may be written to.

  Raises:
    ValueError: It is no such file, or has other entries than its header says.
  """
  stream = io.BytesIO(data)
  header = read_header(stream)
  entries = data[stream.tell() :]
  if len(entries) != header.num_bytes:
    raise ValueError(
      f'an array of shape {header.shape} has {len(entries)} bytes, expected '
      f'{header.num_bytes}'
    )
  order: Literal['C', 'F'] = 'F' if header.is_fortran else 'C'
  flat = np.frombuffer(entries, header.dtype)
  return flat.reshape(header.shape, order=order).copy(order='K')


def read_npz(path: str) -> dict[str, np.ndarray]:
  """Arrays by name of a .npz file that this program wrote.

  Raises:
    storage.DamagedFileError: It is something else.
    errors.InputError: This machine has no memory for what it unpacks to.
  """
  data = storage.read_bytes(path)
  try:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
      members = archive.infolist()
      device_memory.check_host_memory(
        sum(member.file_size for member in members),
        f'the arrays of {path}',
        'delete the file, which is no sums of this program',
      )
      return {
        member.filename.removesuffix('.npy'): read_npy(archive.read(member))
        for member in members
      }
  except _DAMAGES as error:
    raise storage.DamagedFileError(
      f'{path} is no .npz file of this program ({error!r})'
    ) from error


def encode_npz(arrays: Mapping[str, Any]) -> bytes:
  """A .npz file for `read_npz`."""
  stream = io.BytesIO()
  np.savez(stream, **arrays)
  return stream.getvalue()
