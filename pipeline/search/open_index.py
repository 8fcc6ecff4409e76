"""What notebooks use: an index opened by one call, queried without flags."""

import numpy as np

from influence_core.scores.options import ScoreOptions
from pipeline.index import reader as index_reader
from pipeline.search import retrieve, selection as selection_lib, self_influence


class OpenIndex(index_reader.Index):
  """An `Index` with retrieval."""

  def topk(
    self,
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
        stored.
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
    self,
    *,
    options: ScoreOptions | None = None,
  ) -> np.ndarray:
    """[num_examples] float32 influence of each example on its own loss."""
    parts = self_influence.scores(self, options=options or ScoreOptions())
    return np.concatenate([scores for _, scores, _ in parts])

  def projections(self, positions: np.ndarray | None = None) -> np.ndarray:
    """[num_examples, projection_dim] float32, as stored.

    Args:
      positions: of the examples wanted, in any order; None for all in order.
    """
    if positions is None:
      return np.concatenate([block.vectors for block in self.read_blocks()])
    return self.vectors(positions)


def open_index(path: str, *, generation: int | None = None) -> OpenIndex:
  """Opens an index, local or gs://, for queries.

  Args:
    path: directory of the index.
    generation: a published one; None for the newest.

  Raises:
    errors.InputError: Nothing, or no such generation, is published there.
  """
  return OpenIndex(path, generation)
