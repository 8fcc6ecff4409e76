"""Which examples of an index can be found; it takes no time to import."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Selection:
  """Which examples can be found.

  Attributes:
    where: SQL condition on the columns of the rows; only these examples are
      searched, e.g. "label = 3 and length < 40".
    group_by: column; finds --k examples for each of its values.
    excluded_ids: [num_queries] an id that is not found for each query, as for
      queries that are training examples themselves; None for no such.
  """

  where: str | None = None
  group_by: str | None = None
  excluded_ids: tuple[str, ...] | None = None

  def num_leaders(self, k: int) -> int:
    """How many to look for: one of them may be taken out afterwards."""
    return k + (self.excluded_ids is not None)


EVERYTHING = Selection()
