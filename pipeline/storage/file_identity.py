"""What stored files are known by in listings, without reading them.

Checksums and generations of object stores where there are any, size and time
otherwise: enough to notice that a file was replaced.
"""

import base64
from collections.abc import Mapping
import dataclasses
from typing import Any

from pipeline.storage import files as storage, fingerprints

_IDENTITY_KEYS = ('size', 'crc32c', 'md5Hash', 'etag', 'ETag', 'generation')


@dataclasses.dataclass(frozen=True)
class FileIdentity:
  """A stored file as its listing shows it.

  Attributes:
    num_bytes: its size.
    crc32c: 8 hexadecimal digits, None where the store does not tell.
    fingerprint: changes when the file does.
  """

  num_bytes: int
  crc32c: str | None
  fingerprint: str


def identify(path: str) -> FileIdentity | None:
  """The identity of a file; None where there is none."""
  filesystem, name = storage.filesystem_of(path)
  try:
    with storage.store_errors(path):
      info = filesystem.info(name)
      return None if info['type'] == 'directory' else _identity(info)
  except FileNotFoundError:
    return None


def tree(directory: str) -> dict[str, FileIdentity]:
  """Every file below a directory by its path inside it, from one listing."""
  filesystem, name = storage.filesystem_of(directory)
  with storage.store_errors(directory):
    found = filesystem.find(name, detail=True)
    return {
      path[len(name) + 1 :]: _identity(info)
      for path, info in sorted(found.items())
      if path != name and not path.endswith('/')
    }


def _identity(info: Mapping[str, Any]) -> FileIdentity:
  known = {key: info[key] for key in _IDENTITY_KEYS if key in info}
  if known.keys() == {'size'}:
    known['modified'] = str(info.get('mtime', info.get('created')))
  crc32c = info.get('crc32c')
  return FileIdentity(
    info['size'] or 0,
    crc32c and base64.b64decode(crc32c).hex(),
    fingerprints.of_json(known),
  )
