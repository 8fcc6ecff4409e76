"""What each layer contributes to the scores of examples that were found."""

from collections.abc import Callable

import numpy as np

from influence_core.scores import influence as influence_scores, top_k
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces import columns
from pipeline.index import reader as index_reader
from pipeline.search import row_blocks

# Examples whose vectors are in memory at a time.
_ROWS_TOGETHER = 1 << 12


class LayerShares:
  """Shares of scores, by name of the layer; of each example they add up."""

  def __init__(
    self,
    index: index_reader.Index,
    options: ScoreOptions,
    vectors: Callable[[np.ndarray], np.ndarray] | None = None,
  ):
    """Says what was searched, and how it was scored.

    Args:
      index: opened index.
      options: how scores were computed.
      vectors: gives projections of examples by position, where scores are of
        others than those of the index.

    Raises:
      errors.InputError: The index knows no layers.
    """
    index.check_layers('by_layer')
    self._index = index
    self._options = options
    self._vectors = vectors or index.vectors
    self._weights = index.column_weights(options)
    # Layers that do not count have no share.
    counting = {
      layer.name: part
      for layer, part in zip(
        index.layers, columns.slices(index.layers), strict=True
      )
      if self._weights[part].any()
    }
    self._names, self._parts = list(counting), list(counting.values())

  def of_scores(
    self, query_projections: np.ndarray, positions: np.ndarray
  ) -> dict[str, np.ndarray]:
    """Shares of the influence on queries.

    Args:
      query_projections: [num_queries, projection_dim], unscaled.
      positions: [num_queries, k] of examples; `top_k.NO_POSITION` for none.

    Returns:
      [num_queries, k] float64 by layer, 0 where there is no example.
    """
    queries = self._index.weight_queries(query_projections, self._options)

    def share(vectors, squared_norms, places, numbers):
      own = influence_scores.self_influence(vectors, self._weights)
      scales = influence_scores.row_scales(
        own, squared_norms, self._options.normalization
      )
      found = top_k.exact_parts(vectors, places, queries, numbers, self._parts)
      return found if scales is None else found * scales[places, None]

    return self._of(positions, share)

  def of_self_influence(self, positions: np.ndarray) -> dict[str, np.ndarray]:
    """Shares of self-influence.

    Args:
      positions: [1, k] of the examples.

    Returns:
      [1, k] float64 by layer.
    """
    roots = np.sqrt(self._weights).astype(np.float32)

    def share(vectors, squared_norms, places, numbers):
      del numbers
      scaled = vectors * roots
      found = top_k.exact_parts(scaled, places, scaled, places, self._parts)
      return influence_scores.normalized_self_influence(
        found,
        squared_norms[places, None] if len(squared_norms) else squared_norms,
        self._options.normalization,
      )

    return self._of(positions, share)

  def _of(
    self, positions: np.ndarray, share: Callable[..., np.ndarray]
  ) -> dict[str, np.ndarray]:
    """Shares of examples at positions, some examples at a time."""
    unique, places = top_k.unique_positions(positions)
    found = np.zeros((*positions.shape, len(self._parts)))
    for start in range(0, len(unique), _ROWS_TOGETHER):
      some = unique[start : start + _ROWS_TOGETHER]
      here = (places >= start) & (places < start + len(some))
      found[here] = share(
        self._vectors(some),
        row_blocks.squared_norms_at(self._index, some, self._options),
        places[here] - start,
        np.nonzero(here)[0],
      )
    return dict(zip(self._names, np.moveaxis(found, -1, 0), strict=True))
