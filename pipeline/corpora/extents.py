"""Where the records of a file are: found by reading it once, then kept.

Formats without an index of their own (TFRecord, JSON Lines, CSV) are read once
from begin to end; what was found is kept on this machine for all its processes,
until the file changes. Then records are read by ranges of bytes, as of other
formats.
"""

from collections.abc import Callable, Iterator, Sequence
import io
import pathlib
from typing import Any, BinaryIO

import numpy as np

from influence_core import errors
from pipeline.corpora import recent
from pipeline.storage import file_ranges, files as storage, machine_cache

# A scan of a file -> [num_records, 2] int64 first byte and end of each record;
# raises ValueError where it is none of its format.
Scan = Callable[[BinaryIO], np.ndarray]

_CHUNK_BYTES = 1 << 22
# Bytes between records that are read with them: framing, ends of lines.
_MAX_GAP = 64
# Files whose records are known at a time, 16 bytes for each record.
_MAX_KNOWN = 64


class Extents:
  """Records of files by their place, with one kind of scan."""

  def __init__(self, name: str, scan: Scan):
    """Knows nothing yet.

    Args:
      name: of the scan; what another one has kept is not used.
      scan: finds the records of a file.
    """
    self._name = name
    self._scan = scan
    self._known = recent.keep_last(self._load, _MAX_KNOWN)

  def find(self, path: str) -> np.ndarray:
    """[num_records, 2] int64: first byte and end of each record of a file.

    Raises:
      storage.DamagedFileError: The file is missing, or is none of its format.
    """
    return self._known(path)

  def read(self, path: str, records: Sequence[int]) -> list[bytes]:
    """Bytes of records, those that follow each other in one piece.

    Raises:
      storage.DamagedFileError: The file is missing.
      IndexError: The file has no such record.
    """
    places = self.find(path)[np.asarray(records, np.int64)]
    runs = list(_runs(places))
    pieces = file_ranges.read(
      path, [(int(run[0][0]), int(run[-1][1])) for run in runs]
    )
    return [
      piece[start - run[0][0] : stop - run[0][0]]
      for run, piece in zip(runs, pieces, strict=True)
      for start, stop in run
    ]

  def _load(self, path: str) -> np.ndarray:
    def scan(target: pathlib.Path) -> None:
      with storage.open_for_reading(path) as stream, open(target, 'wb') as file:
        raw: Any = stream
        # Each small read of a remote file would be a request.
        try:
          places = self._scan(io.BufferedReader(raw, _CHUNK_BYTES))
        except errors.InputError:
          raise
        except ValueError as error:
          raise storage.DamagedFileError(f'{path}: {error}') from error
        np.save(file, places)

    kept = machine_cache.make_once(path, self._name, scan)
    return np.load(kept, allow_pickle=False)


def _runs(places: np.ndarray) -> Iterator[np.ndarray]:
  """Rows of [n, 2], those together of which each begins soon after the last."""
  gaps = places[1:, 0] - places[:-1, 1]
  breaks = np.flatnonzero((gaps < 0) | (gaps > _MAX_GAP)) + 1
  yield from (x for x in np.split(places, breaks) if len(x))


def lines(stream: BinaryIO) -> np.ndarray:
  """The lines of a text with something in them, without their ends."""
  return _lines(stream, quoted=False)


def quoted_lines(stream: BinaryIO) -> np.ndarray:
  """The same of CSV: a line may go on inside double quotes (RFC 4180)."""
  return _lines(stream, quoted=True)


def _lines(stream: BinaryIO, *, quoted: bool) -> np.ndarray:
  ends, size, num_quotes = [], 0, 0
  while chunk := stream.read(_CHUNK_BYTES):
    data = np.frombuffer(chunk, np.uint8)
    is_end = data == ord('\n')
    if quoted:
      before = num_quotes + np.cumsum(data == ord('"'))
      is_end &= before % 2 == 0
      num_quotes = int(before[-1])
    ends.append(np.flatnonzero(is_end) + size)
    size += len(data)
  stops = np.concatenate([*ends, [size]]).astype(np.int64)
  starts = np.concatenate([[0], stops[:-1] + 1]).astype(np.int64)
  shortest = 1 if quoted else 2  # No object of JSON is shorter.
  return np.stack([starts, stops], axis=1)[stops - starts >= shortest]
