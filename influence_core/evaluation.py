"""How well influence predicts what other training would have done."""

from collections.abc import Callable

import numpy as np
from scipy import stats

from influence_core import errors

_PERCENTILES = (2.5, 97.5)


def linear_datamodelling_scores(
  predicted: np.ndarray, actual: np.ndarray
) -> np.ndarray:
  """Spearman correlation over subsets, of each query.

  The linear datamodelling score of Park et al., "TRAK: Attributing Model
  Behavior at Scale", 2023, section 2.

  Args:
    predicted: [num_subsets, num_queries], of the loss after training on a
      subset, up to an increasing function.
    actual: [num_subsets, num_queries] losses after training on it.

  Returns:
    [num_queries] float64 in [-1, 1]; 0 where one of the two never differs.

  Raises:
    errors.InputError: Shapes differ, or there are fewer than two subsets.
  """
  if predicted.shape != actual.shape or len(predicted) < 2:
    raise errors.InputError(
      f'predictions are {predicted.shape} and losses {actual.shape}, expected '
      'the same shape and at least two subsets'
    )
  ranks = [stats.rankdata(values, axis=0) for values in (predicted, actual)]
  centred = [values - values.mean(axis=0) for values in ranks]
  norms = [np.linalg.norm(values, axis=0) for values in centred]
  products = np.sum(centred[0] * centred[1], axis=0)
  scale = norms[0] * norms[1]
  zeros = np.zeros_like(products)
  return np.divide(products, scale, out=zeros, where=scale > 0)


def bootstrap_interval(
  values: np.ndarray,
  *,
  num_samples: int,
  seed: int,
  statistic: Callable[..., np.ndarray] = np.mean,
) -> tuple[float, float]:
  """A 95 % interval of the statistic of values drawn again with replacement.

  Args:
    values: [num_values].
    num_samples: resamplings.
    seed: of them.
    statistic: of [num_samples, num_values] over axis 1.
  """
  generator = np.random.default_rng(seed)
  chosen = generator.integers(len(values), size=(num_samples, len(values)))
  low, high = np.percentile(statistic(values[chosen], axis=1), _PERCENTILES)
  return float(low), float(high)
