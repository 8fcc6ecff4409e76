"""How well the ranking of an index finds examples that are known to matter.

What matters for a query is said by a condition on the columns of an example and
of the query, the latter with the prefix `query_`: `label = query_label` for the
same class, `id = query_id` for the query itself or its copy.

References:
  Hanawa et al., "Evaluation of Similarity-based Explanations", ICLR 2021, for
  the identical class and subclass tests.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from sklearn import metrics

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import row_blocks, row_filter
from pipeline.tasks import example_batches

PREFIX = 'query_'


class Quality(NamedTuple):
  """Figures of each query that has relevant examples.

  Attributes:
    table: columns query_id, num_relevant, average_precision, auc,
      reciprocal_rank (of the first relevant one), precision_at_K and
      expected_precision, what a random ranking has.
    num_without: queries that have no relevant example, or no other.
  """

  table: pa.Table
  num_without: int


def measure(
  index: members_lib.Searched,
  batch: example_batches.ExampleBatch,
  projections: np.ndarray,
  *,
  relevant: str,
  opponents: bool,
  k: int,
  options: ScoreOptions,
) -> Quality:
  """Ranks all examples for each query.

  Args:
    index: to look at; its scores must fit memory.
    batch: the queries.
    projections: [num_queries, projection_dim] of theirs.
    relevant: SQL condition on columns of examples and queries.
    opponents: whether the lowest scores come first.
    k: examples that somebody would look at.
    options: how to score.

  Raises:
    errors.InputError: The condition cannot be used, or no query has a relevant
      example.
  """
  scores, _ = row_blocks.all_scores(index, projections, options)
  if opponents:
    scores = -scores
  examples = index.rows()
  columns = {'id': batch.ids, **batch.columns}
  matches = row_filter.RowFilter(
    relevant,
    _joined(examples.slice(0, 0), columns, 0).schema,
    flag='--relevant',
  ).matches
  rows, num_without = [], 0
  for number, query_id in enumerate(batch.ids):
    is_relevant = matches(_joined(examples, columns, number))
    if is_relevant.all() or not is_relevant.any():
      num_without += 1
      continue
    rows.append(
      {'query_id': query_id, **_figures(is_relevant, scores[number], k)}
    )
  if not rows:
    raise errors.InputError(
      f'--relevant {relevant!r} tells no examples apart for any of '
      f'{len(batch.ids)} queries'
    )
  return Quality(pa.Table.from_pylist(rows), num_without)


def _joined(examples: pa.Table, columns: dict, number: int) -> pa.Table:
  """Rows with the columns of one query beside them."""
  for name, values in columns.items():
    value = pa.array([values[number]])
    repeated = pa.repeat(value[0], len(examples))
    examples = examples.append_column(PREFIX + name, repeated)
  return examples


def _figures(is_relevant, scores, k: int) -> dict[str, float]:
  order = np.argsort(-scores, kind='stable')
  ordered = is_relevant[order]
  return {
    'num_relevant': int(is_relevant.sum()),
    'average_precision': float(
      metrics.average_precision_score(is_relevant, scores)
    ),
    'auc': float(metrics.roc_auc_score(is_relevant, scores)),
    'reciprocal_rank': 1 / (1 + float(np.argmax(ordered))),
    f'precision_at_{k}': float(ordered[:k].mean()),
    'expected_precision': float(is_relevant.mean()),
  }
