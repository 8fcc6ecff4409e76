"""Records of ArrayRecord files, near or far, without TensorFlow.

The reader of ArrayRecord wants a local file. Of a remote file a sparse one is
made that has the bytes read so far: where others are needed, the reader finds
that checksums do not fit and says at which byte, and these are fetched. So a
range costs its own bytes, and a random sample of a large corpus a few blocks of
each file.
"""

from collections.abc import Sequence
import json
import pathlib
import re
import threading
from typing import Any

from array_record.python import array_record_module

from pipeline.corpora import recent
from pipeline.storage import file_identity, files as storage, machine_cache

# Open files, which the system bounds.
_MAX_OPEN = 64
# No reading ahead, and small buffers: records are asked for by position.
_READER_OPTIONS = {
  'options': 'readahead_buffer_size:0',
  'file_reader_buffer_size': 1 << 15,
}
# A block of the format, which starts with a checksum.
_BLOCK_BYTES = 1 << 16
# Bytes fetched at the first miss; doubled as long as misses follow each other.
_FIRST_BYTES = 1 << 18
_MAX_BYTES = 1 << 26
# [start, stop] of bytes, sorted.
Extents = list[list[int]]
_WHERE = re.compile(r'(?:chunk|block) at (\d+)')


class RecordFiles:
  """Reads records by file and position, with few files open at a time."""

  def __init__(self) -> None:
    self._file = recent.keep_last(_RecordFile, _MAX_OPEN)

  def read(self, path: str, positions: Sequence[int]) -> list[bytes]:
    """Records of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing.
      RuntimeError: A record cannot be read, in the words of the library.
    """
    return self._file(path).read(positions)


class _RecordFile:
  """One file with its reader."""

  def __init__(self, path: str):
    self._copy = None if storage.is_local(path) else _SparseCopy(path)
    if self._copy is None and not storage.exists(path):
      raise storage.DamagedFileError(f'{path} is missing')
    self._path = self._copy.path if self._copy else path
    self._reader: Any = None
    # What was there when the reader was opened.
    self._seen: Extents = []
    self._lock = threading.Lock()

  def read(self, positions: Sequence[int]) -> list[bytes]:
    while True:
      with self._lock:
        if self._reader is None:
          self._open()
        reader, seen = self._reader, self._seen
      try:
        return reader.read(list(positions))
      except RuntimeError as error:
        where = _WHERE.search(str(error))
        start = int(where[1]) if where else 0
        if self._copy is None or not self._copy.fetch_from(start, seen):
          raise
        with self._lock:
          self._reader = None

  def _open(self) -> None:
    self._seen = self._copy.extents() if self._copy else []
    self._reader = array_record_module.ArrayRecordReader(
      self._path, **_READER_OPTIONS
    )


class _SparseCopy:
  """The bytes of a remote file that were needed so far, in a sparse file."""

  def __init__(self, path: str):
    identity = file_identity.identify(path)
    if identity is None:
      raise storage.DamagedFileError(f'{path} is missing')
    self._remote_path = path
    self._num_bytes = identity.num_bytes
    self._place = machine_cache.place_for(path, identity.fingerprint)
    self._next_bytes, self._last_stop = _FIRST_BYTES, -1

  @property
  def path(self) -> str:
    return str(self._place / 'sparse')

  def extents(self) -> Extents:
    """What is there; makes the file if it is not."""
    with machine_cache.locked(self._place):
      return self._extents()

  def fetch_from(self, start: int, seen: Extents) -> bool:
    """Fetches the first bytes that are missing from `start` on, if any are.

    Args:
      start: byte that a reader could not go on at.
      seen: what was there when that reader was opened.

    Returns:
      Whether there is something now that was not there then.
    """
    with machine_cache.locked(self._place):
      extents = self._extents()
      if extents != seen:
        return True  # Others have been here.
      start = _first_missing(extents, start // _BLOCK_BYTES * _BLOCK_BYTES)
      if start >= self._num_bytes:
        return False
      self._fetch(extents, start)
    return True

  def _fetch(self, extents: Extents, start: int) -> None:
    follows = start == self._last_stop
    size = min(2 * self._next_bytes, _MAX_BYTES) if follows else _FIRST_BYTES
    ends = [first for first, _ in extents if first > start]
    stop = min(start + size, self._num_bytes, *ends)
    machine_cache.make_room(self._remote_path, stop - start)
    data = storage.read_range(self._remote_path, start, stop)
    with open(self.path, 'r+b') as file:
      file.seek(start)
      file.write(data)
    self._next_bytes, self._last_stop = size, stop
    merged = _merged([*extents, [start, stop]])
    listed = self._place / 'extents.json'
    temporary = listed.with_suffix('.tmp')
    temporary.write_text(json.dumps(merged))
    temporary.replace(listed)

  def _extents(self) -> Extents:
    listed = self._place / 'extents.json'
    if listed.exists() and pathlib.Path(self.path).exists():
      return json.loads(listed.read_text())
    with open(self.path, 'wb') as file:
      file.truncate(self._num_bytes)
    return []


def _first_missing(extents: Extents, start: int) -> int:
  """The first byte from `start` on that is in no extent."""
  for first, stop in extents:
    if first <= start < stop:
      start = stop
  return start


def _merged(extents: Extents) -> Extents:
  merged: Extents = []
  for start, stop in sorted(extents):
    if merged and start <= merged[-1][1]:
      merged[-1][1] = max(merged[-1][1], stop)
    else:
      merged.append([start, stop])
  return merged
