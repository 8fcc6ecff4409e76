"""What the columns of a projection stand for; it takes no time to import."""

import dataclasses


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
