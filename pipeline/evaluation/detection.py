"""How well scores of an index find examples that are known to be bad.

Self-influence beside what costs nothing (the loss, the norm of the gradient)
and chance, as rankings: area under the ROC curve, average precision, precision
among the first, with bootstrap intervals.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn import metrics

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.index import members as members_lib
from pipeline.search import row_filter, self_influence as self_influence_lib

_INTERVAL = (2.5, 97.5)
# Points of a curve that is stored; enough for any plot.
_MAX_POINTS = 1000


@dataclasses.dataclass(frozen=True)
class Rankings:
  """What is ranked, and by what.

  Attributes:
    is_bad: [num_examples] bool, true of some and not of all.
    scores: [num_examples] by name, the worst to be highest.
  """

  is_bad: np.ndarray
  scores: Mapping[str, np.ndarray]

  def __post_init__(self):
    if self.is_bad.all() or not self.is_bad.any():
      raise errors.InputError(
        f'is_bad is true of {self.is_bad.sum()} of {len(self.is_bad)} '
        'examples, expected some, but not all'
      )


def read_rankings(
  index: members_lib.Searched,
  *,
  bad: str,
  where: str | None,
  options: ScoreOptions,
  seed: int,
) -> Rankings:
  """Reads all scores of an index.

  Args:
    index: to look at; losses and gradients of an ensemble are the first's.
    bad: SQL condition on the columns of the rows, true for bad examples.
    where: one that all examples to rank satisfy; None for all of the index.
    options: of self-influence.
    seed: of the random ranking.

  Raises:
    errors.InputError: The condition cannot be used, or is true of all examples
      or of none.
  """
  index.check_eigenvectors('self-influence')
  matches = row_filter.RowFilter(bad, index.schema, flag='--bad').matches
  among = row_filter.RowFilter(where or 'true', index.schema).matches
  own, losses, norms, is_bad = [], [], [], []
  for _, scores, rows in self_influence_lib.scores(
    index, options=options, columns=tuple(index.schema.names)
  ):
    chosen = among(rows)
    rows = rows.filter(pa.array(chosen))
    own.append(scores[chosen])
    losses.append(rows['loss'].to_numpy())
    norms.append(rows['squared_gradient_norm'].to_numpy())
    is_bad.append(matches(rows))
  found = np.concatenate(is_bad)
  if found.all() or not found.any():
    raise errors.InputError(
      f'--bad {bad!r} is true of {found.sum()} of {len(found)} examples; '
      'expected some, but not all'
    )
  return Rankings(
    found,
    {
      'self_influence': np.concatenate(own),
      'loss': np.concatenate(losses),
      'gradient_norm': np.concatenate(norms),
      'random': np.random.default_rng(seed).random(len(found)),
    },
  )


def measure(
  rankings: Rankings, *, num_first: int, num_bootstrap: int, seed: int
) -> pa.Table:
  """Figures of each score, one row each.

  Args:
    rankings: what to measure.
    num_first: examples that somebody would look at.
    num_bootstrap: resamplings for the 95 % intervals; 0 for none.
    seed: of them.

  Returns:
    Columns score, auc, average_precision, precision_at_N, each of the first
    two with `_low` and `_high`.
  """
  samples = _resamples(rankings.is_bad, num_bootstrap, seed)
  rows = []
  for name, scores in rankings.scores.items():
    first = np.argsort(-scores, kind='stable')[:num_first]
    row: dict[str, Any] = {'score': name}
    for metric, function in (
      ('auc', metrics.roc_auc_score),
      ('average_precision', metrics.average_precision_score),
    ):
      row[metric] = float(function(rankings.is_bad, scores))
      values = [
        function(rankings.is_bad[sample], scores[sample]) for sample in samples
      ]
      if values:
        low, high = np.percentile(values, _INTERVAL)
        row |= {f'{metric}_low': float(low), f'{metric}_high': float(high)}
    row[f'precision_at_{num_first}'] = float(rankings.is_bad[first].mean())
    rows.append(row)
  return pa.Table.from_pylist(rows)


def _resamples(
  is_bad: np.ndarray, num_samples: int, seed: int
) -> list[np.ndarray]:
  """Rows of resamples that have both bad and good examples.

  Of others no figure is defined; they are drawn again. Each is [num_examples].
  """
  generator = np.random.default_rng(seed)
  size = len(is_bad)
  samples: list[np.ndarray] = []
  while len(samples) < num_samples:
    sample = generator.integers(size, size=size)
    if is_bad[sample].any() and not is_bad[sample].all():
      samples.append(sample)
  return samples


def curves(rankings: Rankings) -> pa.Table:
  """Precision and recall of each score: columns score, recall, precision."""
  tables = []
  for name, scores in rankings.scores.items():
    precision, recall, _ = metrics.precision_recall_curve(
      rankings.is_bad, scores
    )
    step = max(1, len(recall) // _MAX_POINTS)
    tables.append(
      pa.table(
        {
          'score': [name] * len(recall[::step]),
          'recall': recall[::step],
          'precision': precision[::step],
        }
      )
    )
  return pa.concat_tables(tables)
