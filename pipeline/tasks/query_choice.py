"""Which queries are asked; it takes no time to import."""

import dataclasses
from typing import Literal

from influence_core import errors

Aggregate = Literal['none', 'mean', 'sum']
STANDARD_INPUT = '-'


@dataclasses.dataclass(frozen=True)
class QueryChoice:
  """Queries from one of three places, and how they are put together.

  Attributes:
    query_split: split of the task's corpus, e.g. 'test[:100]'.
    queries: file of raw examples as the task's preprocess takes them: .jsonl,
      .csv, .parquet, .arrow or .npz; - takes JSON Lines from standard input.
    query_ids: ids of examples of the corpus, of whichever split, or what the
      task's example_id says of indexed ones.
    aggregate: mean or sum asks for the influence on all queries together, in
      one ranking.
    contrast: file of raw examples, as for --queries, whose influence is
      subtracted: one for all queries, or as many.
  """

  query_split: str | None = None
  queries: str | None = None
  query_ids: tuple[str, ...] = ()
  aggregate: Aggregate = 'none'
  contrast: str | None = None

  def __post_init__(self):
    errors.check_choice('aggregate', self.aggregate, Aggregate)
    given = [
      f'--{name}'
      for name in ('query_split', 'queries', 'query_ids')
      if getattr(self, name)
    ]
    if len(given) != 1:
      raise errors.InputError(
        f'queries are given by {" and ".join(given) or "nothing"}, expected '
        'one of --query_split, --queries and --query_ids'
      )
    if STANDARD_INPUT == self.queries == self.contrast:
      raise errors.InputError(
        'queries and contrast are both -, expected standard input for one of '
        'them; write the other to a file'
      )
