"""How well the ranking of an index finds examples that are known to matter.

What matters for a query is said by a condition on the columns of an example and
of the query, the latter with the prefix `query_`: `label = query_label` for the
same class, `id = query_id` for the query itself or its copy.

References:
  Hanawa et al., "Evaluation of Similarity-based Explanations", ICLR 2021, for
  the identical class and subclass tests.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from sklearn import metrics

from influence_core import errors
from pipeline.search import row_filter
from pipeline.tasks import example_batches

PREFIX = 'query_'


class Quality(NamedTuple):
  """Figures of each query that has relevant examples.

  Attributes:
    table: columns score, query_id, num_relevant, average_precision, auc,
      reciprocal_rank (of the first relevant one), precision_at_K, recall_at_K
      and expected_precision, what a random ranking has.
    num_without: queries that have no relevant example, or no other.
  """

  table: pa.Table
  num_without: int


def measure(
  examples: pa.Table,
  batch: example_batches.ExampleBatch,
  scores: Mapping[str, np.ndarray],
  *,
  relevant: str,
  opponents: bool,
  k: int,
) -> Quality:
  """Ranks all examples for each query, by each score.

  Args:
    examples: rows of an index.
    batch: the queries.
    scores: [num_queries, num_examples] by name.
    relevant: SQL condition on columns of examples and queries.
    opponents: whether the lowest scores come first.
    k: examples that somebody would look at.

  Raises:
    errors.InputError: The condition cannot be used, or no query has a relevant
      example.
  """
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
    for name, every in scores.items():
      own = -every[number] if opponents else every[number]
      figures = _figures(is_relevant, own, k)
      rows.append({'score': name, 'query_id': query_id, **figures})
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
    f'recall_at_{k}': float(ordered[:k].sum() / is_relevant.sum()),
    'expected_precision': float(is_relevant.mean()),
  }
