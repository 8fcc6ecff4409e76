"""How well influence predicts what other training would have done."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from influence_core import errors

_PERCENTILES = (2.5, 97.5)
# Resamplings of an interval.
_NUM_SAMPLES = 1000


def pearson_correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Correlation of columns.

  Args:
    one: [num_values, num_queries].
    other: [num_values, num_queries].

  Returns:
    [num_queries] float64 in [-1, 1]; 0 where one of the two never differs.

  Raises:
    errors.InputError: Shapes differ, or there are fewer than two values.
  """
  if one.shape != other.shape or len(one) < 2:
    raise errors.InputError(
      f'values have shapes {one.shape} and {other.shape}, expected the same '
      'shape and at least two values'
    )
  centred = [
    values - values.mean(axis=0, dtype=np.float64) for values in (one, other)
  ]
  norms = [np.linalg.norm(values, axis=0) for values in centred]
  products = np.sum(centred[0] * centred[1], axis=0)
  scale = norms[0] * norms[1]
  zeros = np.zeros_like(products)
  return np.divide(products, scale, out=zeros, where=scale > 0)


def spearman_correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """Correlation of the ranks of columns, see `pearson_correlations`.

  Of predicted and actual losses after training on each of several subsets it
  is the linear datamodelling score of Park et al., "TRAK: Attributing Model
  Behavior at Scale", 2023, section 2.
  """
  ranks = [stats.rankdata(values, axis=0) for values in (one, other)]
  return pearson_correlations(*ranks)


class MeanInterval(NamedTuple):
  """A mean, and its 95 % interval.

  Attributes:
    mean: of the values.
    low: end of the interval.
    high: other end.
  """

  mean: float
  low: float
  high: float


def mean_interval(values: np.ndarray, *, seed: int) -> MeanInterval:
  """The mean of [num_values] values with its bootstrap interval."""
  interval = bootstrap_interval(values, num_samples=_NUM_SAMPLES, seed=seed)
  return MeanInterval(float(values.mean()), *interval)


def bootstrap_interval(
  values: np.ndarray, *, num_samples: int, seed: int
) -> tuple[float, float]:
  """A 95 % interval of the mean of values drawn again with replacement.

  Args:
    values: [num_values].
    num_samples: resamplings.
    seed: of them.
  """
  generator = np.random.default_rng(seed)
  chosen = generator.integers(len(values), size=(num_samples, len(values)))
  low, high = np.percentile(values[chosen].mean(axis=1), _PERCENTILES)
  return float(low), float(high)
