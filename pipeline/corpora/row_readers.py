"""Kinds of files with rows, and what reads them."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any, Protocol, runtime_checkable

import numpy as np

from pipeline.corpora import array_files, table_files, text_files


class RowReader(Protocol):
  """Reads rows, with little of the files open or in memory."""

  def num_rows(self, path: str) -> int:
    """Rows of a file.

    Raises:
      storage.DamagedFileError: It is missing, or is none of this kind.
    """
    ...

  def read(
    self, path: str, positions: Sequence[int]
  ) -> list[Mapping[str, Any]]:
    """Rows of a file, in the order of `positions`.

    Raises:
      storage.DamagedFileError: The file is missing.
      RuntimeError: A row cannot be read.
    """
    ...


@runtime_checkable
class ColumnReader(Protocol):
  """Reads columns as well, of files that hold them as arrays."""

  def read_columns(
    self, path: str, start: int, stop: int
  ) -> Mapping[str, np.ndarray]:
    """See `Corpus.read_columns`, of rows [start, stop) of a file.

    Raises:
      storage.DamagedFileError: The file is missing.
      RuntimeError: A row cannot be read.
    """
    ...


# By the ends of names: tables, and arrays.
TABLES: dict[str, Callable[[Sequence[str]], RowReader]] = {
  '.parquet': table_files.ParquetRows,
  '.arrow': table_files.ArrowRows,
  '.jsonl': text_files.JsonLines,
  '.csv': text_files.Csv,
  '.tsv': lambda columns: text_files.Csv(columns, '\t'),
}
READERS: dict[str, Callable[[Sequence[str]], RowReader]] = {
  **TABLES,
  '.npy': array_files.NpyRows,
  '.npz': array_files.NpzRows,
}


def kind_of(name: str) -> str | None:
  """The key of `READERS` for a file; None for files of no known kind."""
  path = pathlib.PurePath(name)
  kind = path.suffix
  if kind in text_files.COMPRESSIONS:
    kind = path.with_suffix('').suffix
    return kind if kind in ('.jsonl', '.csv', '.tsv') else None
  return kind if kind in READERS else None
