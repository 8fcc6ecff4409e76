"""What is asked of an index; it takes no time to import."""

import dataclasses

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.search.selection import Selection


@dataclasses.dataclass(frozen=True)
class SearchRequest:
  """Which examples are wanted for each query.

  Attributes:
    k: examples at each end.
    options: how to score.
    selection: which examples can be found.
    exclude_self: whether a query that is a training example itself is not
      found for itself.
    certify: whether candidates of an index in low precision are projected
      again until the answer is that of float32 for certain.
  """

  k: int = 10
  options: ScoreOptions = dataclasses.field(default_factory=ScoreOptions)
  selection: Selection = dataclasses.field(default_factory=Selection)
  exclude_self: bool = False
  certify: bool = False

  def __post_init__(self):
    if self.k < 1:
      raise errors.InputError(f'k is {self.k}, expected at least 1')
