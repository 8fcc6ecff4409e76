"""Examples whose gradients point the same way, such as copies."""

import dataclasses
from typing import NamedTuple

import numpy as np

from influence_core import types
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import retrieve
from pipeline.search.selection import Selection


class Pair(NamedTuple):
  """Two examples.

  Attributes:
    first: position of one.
    second: position of the other.
    cosine: of their gradients, in the metric of influence.
  """

  first: int
  second: int
  cosine: float


def find(
  index: members_lib.Searched,
  positions: np.ndarray,
  *,
  at_least: float,
  options: ScoreOptions,
  where: str | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> list[Pair]:
  """The nearest of all examples to each of some, if it is very near.

  Args:
    index: that is searched.
    positions: of the examples to find pairs for.
    at_least: cosine of a pair.
    options: what curvature and which columns count.
    where: SQL condition on the others; None for all of them.
    progress: called with the number of examples compared.

  Returns:
    Each pair once, the nearest first.

  Raises:
    errors.InputError: The options do not fit the index.
  """
  ids = index.rows(positions, ['id'])['id'].to_pylist()
  found = retrieve.search(
    index,
    index.vectors(positions),
    k=1,
    options=dataclasses.replace(options, normalization='cosine'),
    selection=Selection(where, excluded_ids=tuple(ids)),
    progress=progress,
  )
  nearest = found[None].proponents
  pairs: dict[frozenset[int], Pair] = {}
  for position, others, scores in zip(
    positions.tolist(), nearest.positions, nearest.scores, strict=True
  ):
    for other, cosine in zip(others.tolist(), scores.tolist(), strict=True):
      if other != retrieve.NO_POSITION and cosine >= at_least:
        pair = Pair(position, other, cosine)
        pairs.setdefault(frozenset((position, other)), pair)
  return sorted(pairs.values(), key=lambda pair: -pair.cosine)
