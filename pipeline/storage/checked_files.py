"""Files that are known by size and checksum, and JSON that carries its own."""

import dataclasses
import json
from typing import Any

import google_crc32c

from influence_core import errors
from pipeline.storage import files as storage

# Bytes of a memory view that are copied at a time, as the library wants bytes.
_CHECKSUM_BYTES = 1 << 24
# The checksum follows.
_JSON_START = b'{"crc32c": "'


@dataclasses.dataclass(frozen=True)
class StoredFile:
  """A file with what is needed to know it again."""

  name: str
  num_bytes: int
  crc32c: str

  @classmethod
  def of(cls, name: str, data: bytes) -> 'StoredFile':
    return cls(name, len(data), checksum(data))


def check_name(name: str) -> None:
  """Refuses a name in a file of another one, if it leads out of its directory.

  Raises:
    ValueError: It is absolute, an address, or has `..` or an empty part.
  """
  parts = name.split('/')
  if {'', '.', '..'}.intersection(parts) or '\\' in name or '\0' in name:
    raise ValueError(f'{name!r} is no name of a file below a directory')
  if parts[0].endswith(':'):
    raise ValueError(f'{name!r} is an address, expected a name')


def check_file(file: StoredFile) -> None:
  """Refuses what a file says of another one, if that cannot be.

  Raises:
    ValueError: See `check_name`; or it has a negative size.
  """
  check_name(file.name)
  if file.num_bytes < 0:
    raise ValueError(f'num_bytes is {file.num_bytes}, expected at least 0')


def checksum(data: bytes | memoryview) -> str:
  """crc32c of `data` as 8 hexadecimal digits, as GCS computes it."""
  value = 0
  for start in range(0, len(data), _CHECKSUM_BYTES):
    chunk = bytes(data[start : start + _CHECKSUM_BYTES])
    value = google_crc32c.extend(value, chunk)
  return f'{value:08x}'


class RunningCheck:
  """Compares a file, read piece by piece, with what it must be."""

  def __init__(self, path: str, expected: StoredFile):
    self._path = path
    self._expected = expected
    self._num_bytes = 0
    self._checksum = 0

  def add(self, piece: bytes) -> None:
    """Takes in the next bytes of the file."""
    self._num_bytes += len(piece)
    self._checksum = google_crc32c.extend(self._checksum, piece)

  def finish(self) -> None:
    """Compares, after the last piece.

    Raises:
      storage.DamagedFileError: Size or checksum differ.
    """
    expected = self._expected
    if self._num_bytes != expected.num_bytes:
      more = 'more than ' if self._num_bytes > expected.num_bytes else ''
      raise storage.DamagedFileError(
        f'{self._path} has {more}{min(self._num_bytes, expected.num_bytes)} '
        f'bytes, expected '
        f'{expected.num_bytes}: it is truncated or was replaced'
      )
    found = f'{self._checksum:08x}'
    if found != expected.crc32c:
      raise storage.DamagedFileError(
        f'{self._path} has crc32c {found}, expected {expected.crc32c}: its '
        'content was altered'
      )


def read_checked(path: str, expected: StoredFile) -> bytes:
  """The content of a file whose size and checksum are known.

  Raises:
    storage.DamagedFileError: The file is missing, truncated or altered.
  """
  data = storage.read_bytes(path)
  check = RunningCheck(path, expected)
  check.add(data)
  check.finish()
  return data


def encode_json(content: dict[str, Any]) -> bytes:
  """`content` as a readable JSON document that carries its own checksum.

  The checksum is that of every other byte of the document.
  """
  body = json.dumps(content, indent=1, sort_keys=True)
  rest = b'",\n"content": ' + body.encode() + b'}\n'
  return _JSON_START + checksum(_JSON_START + rest).encode() + rest


def read_json(path: str) -> dict[str, Any]:
  """The content of a document written with `encode_json`.

  Raises:
    storage.DamagedFileError: The file is missing or its checksum does not fit.
  """
  data = storage.read_bytes(path)
  start, stop = len(_JSON_START), len(_JSON_START) + 8
  found = checksum(data[:start] + data[stop:]).encode()
  if not data.startswith(_JSON_START) or found != data[start:stop]:
    raise storage.DamagedFileError(
      f'{path} is no complete JSON document of this program: it is truncated, '
      'altered or of another version'
    )
  try:
    content = json.loads(data)['content']
  except (ValueError, KeyError, RecursionError) as error:
    raise storage.DamagedFileError(
      f'{path} is no JSON document of this program '
      f'({type(error).__name__}: {errors.first_line(error)})'
    ) from error
  if not isinstance(content, dict):
    raise storage.DamagedFileError(
      f'{path} holds a {type(content).__name__}, expected a JSON object'
    )
  return content
