"""What is searched: the members of an ensemble, an index alone being one.

An ensemble has the columns of all its members, one member's after the other's,
and the examples that all of them have. An index alone is an ensemble of itself,
so that whatever reads or scores goes through members and knows no other case.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import itertools
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from influence_core import types
from influence_core.scores.options import ScoreOptions
from pipeline.index import block_reader

if TYPE_CHECKING:
  from pipeline.index.reader import Index

NO_POSITIONS = np.empty(0, np.int64)


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
  """An index among those that are searched together.

  Attributes:
    index: opened index.
    scale: what its scores are multiplied by.
    left_out: [n] int64 positions, increasing, of examples that are not in all
      indexes.
  """

  index: 'Index'
  scale: float = 1.0
  left_out: np.ndarray = dataclasses.field(default_factory=lambda: NO_POSITIONS)

  def own(self, positions: np.ndarray) -> np.ndarray:
    """Positions in the index of examples by their position in the ensemble."""
    kept_before = self.left_out - np.arange(len(self.left_out))
    return positions + np.searchsorted(kept_before, positions, side='right')

  def common(self, positions: np.ndarray) -> np.ndarray:
    """The other way round; of what is left out, that of the next example."""
    return positions - np.searchsorted(self.left_out, positions)

  def spans(self) -> np.ndarray:
    """[num_shards, 2] first position of each shard, and one past its last."""
    counts = [shard.num_written for shard in self.index.manifest.shards]
    edges = self.common(np.cumsum([0, *counts]))
    return np.stack([edges[:-1], edges[1:]], axis=1)

  def read_blocks(
    self,
    columns: Sequence[str],
    numbers: Sequence[int] | None = None,
    progress: types.ProgressCallback = types.no_progress,
  ) -> Iterator[block_reader.ReadBlock]:
    """As `Index.read_blocks`, without what is left out."""
    for block in self.index.read_blocks(
      columns=columns, numbers=numbers, progress=progress
    ):
      count = len(block.vectors)
      start, stop = np.searchsorted(
        self.left_out, (block.first, block.first + count)
      )
      first = block.first - int(start)
      vectors, rows = block.vectors, block.rows
      if start < stop:
        places = self.left_out[start:stop] - block.first
        kept = np.delete(np.arange(count), places)
        vectors = vectors[kept]
        rows = rows.take(pa.array(kept)) if rows.num_columns else rows
      yield block_reader.ReadBlock(first, vectors, rows)


class Searched(Protocol):
  """What can be searched: an index, or an ensemble of some."""

  path: str

  @property
  def members(self) -> tuple[Member, ...]:
    """The indexes whose scores are added."""
    ...

  @property
  def num_examples(self) -> int:
    """That can be found."""
    ...

  @property
  def projection_dim(self) -> int:
    """Columns of all members."""
    ...

  @property
  def schema(self) -> pa.Schema:
    """Columns of the rows."""
    ...

  def column_weights(self, options: ScoreOptions) -> np.ndarray:
    """[projection_dim] float64, with the scales of members."""
    ...

  def weight_queries(
    self, query_projections: np.ndarray, options: ScoreOptions
  ) -> np.ndarray:
    """[num_queries, projection_dim] float32, with the scales of members."""
    ...

  def rows(
    self,
    positions: Sequence[int] | np.ndarray | None = None,
    columns: Sequence[str] | None = None,
  ) -> pa.Table:
    """Rows of examples, see `Index.rows`."""
    ...

  def vectors(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """[len(positions), projection_dim] float32 projections of examples."""
    ...

  def check_column(self, name: str) -> None:
    """Raises errors.InputError when the rows have no such column."""
    ...

  def check_eigenvectors(self, what: str) -> None:
    """Raises errors.InputError when columns stand for queries."""
    ...

  def check_examples(self, what: str) -> None:
    """Raises errors.InputError when rows are tokens of examples."""
    ...

  def check_layers(self, what: str) -> None:
    """Raises errors.InputError when columns belong to no layers."""
    ...


def parts_of(index: Searched) -> list[slice]:
  """Where the columns of each member are."""
  counts = (member.index.projection_dim for member in index.members)
  edges = itertools.accumulate(counts, initial=0)
  return [slice(*edge) for edge in itertools.pairwise(edges)]
