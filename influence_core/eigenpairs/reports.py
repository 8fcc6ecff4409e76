"""What is known of a basis of solved queries.

Its vectors are (H + damping)^-1 g of single queries: the projection of an
example on one of them is its influence on that query, and on no other.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any, Literal

Method = Literal['gradient', 'cg', 'lissa', 'exact', 'ekfac']


@dataclasses.dataclass(frozen=True)
class QueryReport:
  """How a basis of queries was made.

  Attributes:
    method: 'gradient' for the queries' gradients themselves; else by what the
      inverse curvature was applied to them.
    query_ids: of the queries, one for each vector.
    residuals: |(H + damping) v - g| / |g| of each; empty where it is not known.
    num_products: with the curvature, for all queries together.
    sample_size: examples that the curvature is the mean of; 0 for none.
    seconds: that it took.
    rejected: reason by id of the examples that were left out of the sample.
  """

  method: Method
  query_ids: tuple[str, ...]
  residuals: tuple[float, ...]
  num_products: int
  sample_size: int
  seconds: float
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @classmethod
  def from_json(cls, content: Mapping[str, Any]) -> 'QueryReport':
    lists = {name: tuple(content[name]) for name in ('query_ids', 'residuals')}
    return cls(**{**content, **lists})

  @property
  def objections(self) -> list[str]:
    return []
