"""What each layer contributes to the scores of examples that were found."""

from collections.abc import Callable

import numpy as np

from influence_core.scores import (
  exact_sums,
  influence as influence_scores,
  top_k,
)
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces import columns as columns_lib
from pipeline.index import members as members_lib
from pipeline.search import member_rows

# Examples whose vectors are in memory at a time.
_ROWS_TOGETHER = 1 << 12


class LayerShares:
  """Shares of scores, by name of the layer; of each example they add up.

  Layers of several indexes that have one name have one share.
  """

  def __init__(
    self,
    index: members_lib.Searched,
    options: ScoreOptions,
    vectors: Callable[[np.ndarray], np.ndarray] | None = None,
  ):
    """Says what was searched, and how it was scored.

    Args:
      index: that was searched.
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
    self._rows = member_rows.MemberRows(index, options)
    self._weights = index.column_weights(options)
    # Of each layer that counts: its name, its columns and its member.
    self._names, self._parts, self._members = [], [], []
    for number, (member, columns) in enumerate(
      zip(index.members, members_lib.parts_of(index), strict=True)
    ):
      layers = member.index.layers
      for layer, part in zip(layers, columns_lib.slices(layers), strict=True):
        part = slice(part.start + columns.start, part.stop + columns.start)
        if self._weights[part].any():
          self._names.append(layer.name)
          self._parts.append(part)
          self._members.append(number)

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
      own = self._rows.self_influences(vectors)
      scales = self._rows.scales(own, squared_norms)
      found = exact_sums.exact_parts(
        vectors, places, queries, numbers, self._parts
      )
      if scales is None:
        return found
      return found * scales[places][:, self._members]

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
      found = exact_sums.exact_parts(
        scaled, places, scaled, places, self._parts
      )
      return influence_scores.normalized_self_influence(
        found,
        squared_norms[places][:, self._members],
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
        self._rows.squared_norms_at(some),
        places[here] - start,
        np.nonzero(here)[0],
      )
    totals: dict[str, np.ndarray] = {}
    for name, shares in zip(
      self._names, np.moveaxis(found, -1, 0), strict=True
    ):
      totals[name] = totals[name] + shares if name in totals else shares
    return totals
