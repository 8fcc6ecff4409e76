"""Raw examples that are read together: row by row, or a column at once."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import functools
from typing import Any

import numpy as np

from pipeline.corpora.corpus import RawExample


class RawBatch(Sequence[RawExample]):
  """A sequence of raw examples; what is asked for is read, rows or columns.

  Where files hold arrays, a column is read without any row.
  """

  def __init__(
    self,
    num_examples: int,
    read_rows: Callable[[], Iterable[RawExample]],
    read_columns: Callable[[], Mapping[str, np.ndarray]] = dict,
  ):
    """Reads nothing yet.

    Args:
      num_examples: of the batch.
      read_rows: gives all of them; called once, if at all.
      read_columns: gives [num_examples, ...] arrays by name, of features that
        need no rows; called once, if at all.
    """
    self._num_examples = num_examples
    self._read_rows = read_rows
    self._read_columns = read_columns

  @functools.cached_property
  def _rows(self) -> list[RawExample]:
    return list(self._read_rows())

  @functools.cached_property
  def columns(self) -> Mapping[str, np.ndarray]:
    """[num_examples, ...] by name, as they are in the file; not to change."""
    return self._read_columns()

  def __len__(self) -> int:
    return self._num_examples

  def __getitem__(self, place: Any) -> Any:
    return self._rows[place]

  def __iter__(self) -> Iterator[RawExample]:
    return iter(self._rows)

  def column(self, name: str) -> np.ndarray:
    """[num_examples, ...] of a feature: that of each example, stacked.

    Args:
      name: of the feature.

    Raises:
      KeyError: An example has no such feature.
      ValueError: It has not the same shape in all.
    """
    if name in self.columns:
      return np.array(self.columns[name])
    return np.stack([row[name] for row in self])
