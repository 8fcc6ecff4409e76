"""What the columns of a projection stand for; it takes no time to import."""

from collections.abc import Sequence
import dataclasses
import itertools
from typing import Any


@dataclasses.dataclass(frozen=True)
class LayerColumns:
  """The columns of a projection that a layer has; those of layers follow.

  Attributes:
    name: of the layer.
    count: of its columns.
    mean_curvature: trace of the layer's curvature over its number of entries.
    captured: share of the trace that is inside the subspace.
  """

  name: str
  count: int
  mean_curvature: float
  captured: float


def slices(layers: Sequence[LayerColumns]) -> list[slice]:
  """Where the columns of each layer are."""
  edges = itertools.accumulate((x.count for x in layers), initial=0)
  return [slice(*edge) for edge in itertools.pairwise(edges)]


def to_json(layers: Sequence[LayerColumns]) -> list[dict[str, Any]]:
  """Layers for other programs: with the first of their columns."""
  return [
    {**dataclasses.asdict(layer), 'start': part.start}
    for layer, part in zip(layers, slices(layers), strict=True)
  ]
