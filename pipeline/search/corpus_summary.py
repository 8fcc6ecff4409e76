"""What an index says of its corpus as a whole, in one pass over it."""

from collections.abc import Hashable
import dataclasses
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from influence_core import types
from influence_core.scores import exact_sums
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces import columns as columns_lib
from pipeline.index import in_step, members as members_lib
from pipeline.search import row_blocks

# More values are no classes.
MAX_CLASSES = 50


class ClassInfluence(NamedTuple):
  """Mean influence between classes of training examples.

  Attributes:
    column: of the rows, that says the class.
    classes: its values, in order.
    counts: [num_classes] examples of each.
    means: [num_classes, num_classes] float64: of an example of the first on
      another one of the second; NaN where there is no such pair.
  """

  column: str
  classes: list[Hashable]
  counts: np.ndarray
  means: np.ndarray


class CorpusSummary(NamedTuple):
  """Sums over all examples.

  Attributes:
    self_influence: mean of it, not normalised.
    by_layer: share of each layer in that, by name; empty without layers.
    classes: influence between classes; None without any, or with too many.
  """

  self_influence: float
  by_layer: dict[str, float]
  classes: ClassInfluence | None


def summarise(
  index: members_lib.Searched,
  options: ScoreOptions,
  *,
  class_column: str | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> CorpusSummary:
  """Reads the index once.

  Args:
    index: that is summarised.
    options: how to score.
    class_column: of the rows; None for no classes.
    progress: called with the number of examples read.

  Raises:
    errors.InputError: The column is not there, or the columns of the index
      stand for queries.
  """
  index.check_eigenvectors('a summary')
  if class_column is not None:
    index.check_column(class_column)
  sums = _Sums(index, options, class_column)
  scorer = row_blocks.Scorer(index, options)
  first, *others = scorer.columns
  if class_column is not None:
    first = (*first, class_column)
  for blocks in in_step.read_in_step(
    index, [first, *others], progress=progress
  ):
    sums.add(scorer.score(blocks), blocks[0].rows)
  return CorpusSummary(
    sums.self_influence(), sums.by_layer(), sums.between_classes()
  )


@dataclasses.dataclass
class _ClassSums:
  """Sums over the examples of a class.

  Attributes:
    count: of them.
    left: [projection_dim] rows, as they influence others.
    right: [projection_dim] rows, as they are influenced.
    own: influence of each on itself.
  """

  count: int = 0
  left: np.ndarray | float = 0.0
  right: np.ndarray | float = 0.0
  own: float = 0.0


class _Sums:
  """Sums over the rows of an index."""

  def __init__(
    self,
    index: members_lib.Searched,
    options: ScoreOptions,
    class_column: str | None,
  ):
    self._index = index
    self._options = options
    self._column = class_column
    self._parts = members_lib.parts_of(index)
    self._weights = index.column_weights(options)
    self._squares = np.zeros(index.projection_dim)
    self._count = 0
    self._classes: dict[Hashable, _ClassSums] = {}

  def add(self, rows: row_blocks.ScoredRows, table: pa.Table) -> None:
    """Adds rows, with the column of classes in the table."""
    self._squares += np.einsum(
      'nk,nk->k', rows.vectors, rows.vectors, dtype=np.float64
    )
    self._count += len(rows.vectors)
    if self._column is None:
      return
    left = exact_sums.scaled(rows.vectors, rows.scales, self._parts)
    right = self._index.weight_queries(rows.vectors, self._options)
    own = np.einsum('nk,nk->n', left, right, dtype=np.float64)
    values = np.array(table[self._column].to_pylist(), object)
    for value in dict.fromkeys(values):
      chosen = values == value
      sums = self._classes.setdefault(value, _ClassSums())
      if len(self._classes) > MAX_CLASSES:
        self._column = None
        return
      sums.count += int(chosen.sum())
      sums.left += left[chosen].sum(axis=0, dtype=np.float64)
      sums.right += right[chosen].sum(axis=0, dtype=np.float64)
      sums.own += float(own[chosen].sum())

  def self_influence(self) -> float:
    return float(self._squares @ self._weights) / max(self._count, 1)

  def by_layer(self) -> dict[str, float]:
    energy = self._squares * self._weights
    shares: dict[str, float] = {}
    for member, part in zip(self._index.members, self._parts, strict=True):
      layers = member.index.layers
      for layer, own in zip(layers, columns_lib.slices(layers), strict=True):
        share = float(energy[part][own].sum()) / (energy.sum() or 1)
        shares[layer.name] = shares.get(layer.name, 0.0) + share
    return shares

  def between_classes(self) -> ClassInfluence | None:
    if self._column is None or not self._classes:
      return None
    try:
      classes = sorted(self._classes)  # type: ignore[type-var]
    except TypeError:  # A missing value, beside others.
      classes = sorted(self._classes, key=str)
    sums = [self._classes[value] for value in classes]
    counts = np.array([x.count for x in sums])
    left, right = (
      np.stack([getattr(x, side) for x in sums]) for side in ('left', 'right')
    )
    # No example is another one of its class.
    totals = left @ right.T - np.diag([x.own for x in sums])
    pairs = np.outer(counts, counts) - np.diag(counts)
    means = np.where(pairs > 0, totals / np.maximum(pairs, 1), np.nan)
    return ClassInfluence(self._column, classes, counts, means)
