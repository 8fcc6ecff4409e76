"""What notebooks use: indexes opened by one call, queried without flags."""

from collections.abc import Sequence
import html

import numpy as np
import pyarrow as pa

from influence_core.scores.options import ScoreOptions
from pipeline.index import (
  ensemble,
  in_step,
  members as members_lib,
  reader as index_reader,
)
from pipeline.search import (
  answer,
  retrieve,
  selection as selection_lib,
  self_influence,
  tables,
)

# Rows that a notebook shows.
_NUM_SHOWN = 5


class _Retrieval:
  """What an index and an ensemble can be asked."""

  def topk(
    self: members_lib.Searched,
    query_projections: np.ndarray,
    k: int = 100,
    *,
    options: ScoreOptions | None = None,
    where: str | None = None,
    by_layer: bool = False,
  ) -> retrieve.Found:
    """Proponents and opponents of queries, exactly.

    Args:
      query_projections: [num_queries, projection_dim] or [projection_dim],
        unscaled, as `GradientProjector.project` gives them or as they are
        stored; of an ensemble, those of all members beside each other.
      k: examples wanted at each end.
      options: damping, normalisation and other choices; None for none.
      where: SQL condition on the columns of the rows; None for all examples.
      by_layer: whether the share of each layer in a score is wanted, too.

    Raises:
      errors.InputError: Something does not fit the index.
    """
    found = retrieve.search(
      self,
      np.atleast_2d(query_projections),
      k=k,
      options=options or ScoreOptions(),
      selection=selection_lib.Selection(where=where),
      by_layer=by_layer,
    )
    return found[None]

  def self_influence(
    self: members_lib.Searched,
    *,
    options: ScoreOptions | None = None,
  ) -> np.ndarray:
    """[num_examples] float32 influence of each example on its own loss."""
    parts = self_influence.scores(self, options=options or ScoreOptions())
    return np.concatenate([scores for _, scores, _ in parts])

  def suspicious(
    self: members_lib.Searched,
    k: int = 100,
    *,
    options: ScoreOptions | None = None,
    where: str | None = None,
  ) -> pa.Table:
    """Rows of the examples with the highest self-influence, best first.

    Args:
      k: examples wanted.
      options: how to score; None for the defaults.
      where: SQL condition on the columns of the rows; None for all examples.

    Raises:
      errors.InputError: Something does not fit the index.
    """
    top = self_influence.top(
      self,
      k=k,
      options=options or ScoreOptions(),
      selection=selection_lib.Selection(where=where),
    )
    return tables.self_influence_table(self, top)

  def projections(
    self: members_lib.Searched, positions: np.ndarray | None = None
  ) -> np.ndarray:
    """[num_examples, projection_dim] float32, as stored.

    Args:
      positions: of the examples wanted, in any order; None for all in order.
    """
    if positions is not None:
      return self.vectors(positions)
    nothing: list[tuple[str, ...]] = [() for _ in self.members]
    return np.concatenate(
      [
        in_step.joined([block.vectors for block in blocks], axis=1)
        for blocks in in_step.read_in_step(self, nothing)
      ]
    )


class OpenIndex(_Retrieval, index_reader.Index):
  """An `Index` with retrieval."""

  def _repr_html_(self) -> str:
    rows = self.rows(range(min(_NUM_SHOWN, self.num_examples)))
    return f'<p>{html.escape(repr(self))}</p>{answer.html_table(rows)}'


class OpenEnsemble(_Retrieval, ensemble.Ensemble):
  """An `Ensemble` with retrieval."""


def open_index(path: str, *, generation: int | None = None) -> OpenIndex:
  """Opens an index, local or gs://, for queries.

  Args:
    path: directory of the index.
    generation: a published one; None for the newest.

  Raises:
    errors.InputError: Nothing, or no such generation, is published there.
  """
  return OpenIndex(path, generation)


def open_ensemble(
  paths: Sequence[str], *, scales: Sequence[float] | None = None
) -> OpenEnsemble:
  """Opens indexes of one corpus, whose scores are added.

  Args:
    paths: of the indexes, at least one; rows are those of the first.
    scales: what the scores of each are multiplied by; None for their mean.

  Raises:
    errors.InputError: Nothing is published at one of them, they are of other
      examples, or scales do not fit.
  """
  return OpenEnsemble([index_reader.Index(path) for path in paths], scales)
