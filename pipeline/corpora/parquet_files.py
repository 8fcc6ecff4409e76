"""Rows of Parquet files by position, row group by row group."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.corpora import recent
from pipeline.storage import files as storage

# Open files, which the system bounds.
_MAX_OPEN = 64
# Row groups in memory at a time, so that a range that goes on in the next one
# reads each once.
_MAX_GROUPS = 4


class _OpenFile(NamedTuple):
  """A file, and the first row of each row group, with the end of the last."""

  rows: pq.ParquetFile
  edges: np.ndarray


class ParquetFiles:
  """Reads rows, with few files open and few row groups in memory."""

  def __init__(self, columns: Sequence[str] = ()):
    """Opens nothing yet.

    Args:
      columns: to read; empty for all.
    """
    self._columns = columns
    self._file = recent.keep_last(self._open, _MAX_OPEN)
    self._group = recent.keep_last(self._read_group, _MAX_GROUPS)

  def num_rows(self, path: str) -> int:
    """Rows of a file, from its footer.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
    """
    return self._file(path).rows.metadata.num_rows

  def read(self, path: str, positions: Sequence[int]) -> pa.Table:
    """Rows of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing or is no Parquet file.
      RuntimeError: A row cannot be read, or is not there.
    """
    wanted = np.asarray(positions, np.int64)
    edges = self._file(path).edges
    if len(wanted) and wanted.max() >= edges[-1]:
      raise RuntimeError(f'{path} has no row {wanted.max()}')
    numbers = np.searchsorted(edges, wanted, side='right') - 1
    used = np.unique(numbers)
    tables = [self._group(path, int(number)) for number in used]
    # Rows in the tables that follow each other, whose sizes are those of used.
    firsts = np.cumsum([0, *map(len, tables)])
    inside = wanted - edges[numbers]
    rows = firsts[np.searchsorted(used, numbers)] + inside
    return pa.concat_tables(tables).take(pa.array(rows))

  def _open(self, path: str) -> _OpenFile:
    try:
      rows = pq.ParquetFile(storage.open_for_reading(path), pre_buffer=True)
    except pa.ArrowInvalid as error:
      raise storage.DamagedFileError(
        f'{path} is no Parquet file ({error}); write it again'
      ) from error
    recent.check_columns(path, self._columns, rows.schema_arrow.names)
    groups = map(rows.metadata.row_group, range(rows.num_row_groups))
    return _OpenFile(rows, np.cumsum([0, *(x.num_rows for x in groups)]))

  def _read_group(self, path: str, number: int) -> pa.Table:
    try:
      rows = self._file(path).rows
      return rows.read_row_group(number, self._columns or None)
    except (OSError, pa.ArrowInvalid) as error:
      raise RuntimeError(
        f'row group {number} of {path} cannot be read ({error})'
      ) from error
