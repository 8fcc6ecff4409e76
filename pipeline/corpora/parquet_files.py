"""Rows of Parquet files by position, row group by row group."""

import collections
from collections.abc import Sequence
import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import errors
from pipeline.storage import files as storage

# Open files, which the system bounds.
_MAX_OPEN = 64
# Row groups in memory at a time, so that a range that goes on in the next one
# reads each once.
_MAX_GROUPS = 4


class ParquetFiles:
  """Reads rows, with few files open and few row groups in memory."""

  def __init__(self, columns: Sequence[str] | None = None):
    """Opens nothing yet.

    Args:
      columns: to read; None for all.
    """
    self._columns = columns
    self._open: collections.OrderedDict[str, pq.ParquetFile] = (
      collections.OrderedDict()
    )
    self._groups: collections.OrderedDict[tuple[str, int], pa.Table] = (
      collections.OrderedDict()
    )
    self._lock = threading.Lock()

  def num_rows(self, path: str) -> int:
    """Rows of a file, from its footer.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
    """
    with self._lock:
      return self._file(path).metadata.num_rows

  def read(self, path: str, positions: Sequence[int]) -> pa.Table:
    """Rows of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
      RuntimeError: A row cannot be read, or is not there.
    """
    wanted = np.asarray(positions, np.int64)
    with self._lock:
      metadata = self._file(path).metadata
      sizes = [
        metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)
      ]
      ends = np.cumsum(sizes)
      if len(wanted) and (not sizes or wanted.max() >= ends[-1]):
        raise RuntimeError(f'{path} has no row {wanted.max()}')
      numbers = np.searchsorted(ends, wanted, side='right')
      used = np.unique(numbers)
      tables = [self._group(path, int(number)) for number in used]
    # Rows in the tables that follow each other, whose sizes are those of used.
    firsts = np.concatenate([[0], np.cumsum([len(x) for x in tables])])[:-1]
    place = np.searchsorted(used, numbers)
    inside = wanted - (ends - sizes)[numbers]
    return pa.concat_tables(tables).take(pa.array(firsts[place] + inside))

  def _file(self, path: str) -> pq.ParquetFile:
    if path not in self._open:
      try:
        self._open[path] = pq.ParquetFile(
          storage.open_for_reading(path), pre_buffer=True
        )
      except pa.ArrowInvalid as error:
        raise storage.DamagedFileError(
          f'{path} is no Parquet file ({error}); write it again'
        ) from error
      names = self._open[path].schema_arrow.names
      if absent := set(self._columns or ()) - set(names):
        raise errors.InputError(
          f'{path} has no column {", ".join(sorted(absent))}; it has '
          f'{", ".join(names)}'
        )
    self._open.move_to_end(path)
    if len(self._open) > _MAX_OPEN:
      self._open.popitem(last=False)[1].close(force=True)
    return self._open[path]

  def _group(self, path: str, number: int) -> pa.Table:
    key = path, number
    if key not in self._groups:
      try:
        self._groups[key] = self._file(path).read_row_group(
          number, self._columns
        )
      except (OSError, pa.ArrowInvalid) as error:
        raise RuntimeError(
          f'row group {number} of {path} cannot be read ({error})'
        ) from error
    self._groups.move_to_end(key)
    if len(self._groups) > _MAX_GROUPS:
      self._groups.popitem(last=False)
    return self._groups[key]
