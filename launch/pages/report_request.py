"""What a report is to show; it takes no time to import."""

import dataclasses

from influence_core import errors
from influence_core.scores.options import ScoreOptions


@dataclasses.dataclass(frozen=True)
class ReportRequest:
  """What a report shows.

  Attributes:
    num_examples: training examples of the highest self-influence that are
      shown.
    k: number of examples at each end of a query.
    options: how to score.
    where: SQL condition: only these examples are shown and searched, e.g.
      "length < 40".
    bad: SQL condition that bad examples meet, where it is known, e.g. "label <>
      true_label": how early they come is measured, and they are marked.
    class_column: column of the classes that influence is shown between; '' for
      none. Default: label, where there is one.
    tokens: also shade the tokens of texts by their share in each score; each
      example that is shown takes a gradient.
    exclude_self: leave out the query itself where it is a training example.
    rows_only: leave the corpus and the model alone: rows of the index, without
      images, texts and predictions.
  """

  num_examples: int = 200
  k: int = 8
  options: ScoreOptions = dataclasses.field(default_factory=ScoreOptions)
  where: str | None = None
  bad: str | None = None
  class_column: str | None = None
  tokens: bool = False
  exclude_self: bool = False
  rows_only: bool = False

  def __post_init__(self):
    errors.check_at_least_one(num_examples=self.num_examples, k=self.k)
    if self.tokens and self.rows_only:
      raise errors.InputError(
        'both tokens and rows_only are given, expected one of them: tokens are '
        'told apart by the model'
      )
