"""What is asked of an index; it takes no time to import."""

import dataclasses

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.search.selection import Selection


@dataclasses.dataclass(frozen=True)
class SearchRequest:
  """Which examples are wanted for each query.

  Attributes:
    k: number of examples at each end.
    options: how to score.
    selection: which examples can be found.
    exclude_self: leave out the query itself where it is a training example.
    certify: with an index in bfloat16 or int8, project candidates again until
      the answer is certain to be that of float32.
    by_layer: also give the share of each layer in each score; they add up to
      it.
  """

  k: int = 10
  options: ScoreOptions = dataclasses.field(default_factory=ScoreOptions)
  selection: Selection = dataclasses.field(default_factory=Selection)
  exclude_self: bool = False
  certify: bool = False
  by_layer: bool = False

  def __post_init__(self):
    errors.check_at_least_one(k=self.k)
