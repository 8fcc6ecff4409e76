"""How well anything could predict what training again gives: the noise ceiling.

Training on the same examples with another seed gives other losses. What of
their order over the subsets is the same again, the reliability of the mean of
some trainings, bounds every prediction: even one that knows what training gives
on average has a correlation of only its square root with that mean (Spearman,
1904). The reliability is measured by split halves: the correlation of the means
of two halves of the trainings, which is that of half as many, and the
Spearman-Brown formula for as many as there are.

References:
  Spearman, "The proof and measurement of association between two things",
    American Journal of Psychology 15, 1904, on attenuation.
  Spearman, "Correlation calculated from faulty data", and Brown, "Some
    experimental results in the correlation of mental abilities", both British
    Journal of Psychology 3, 1910.
"""

import numpy as np

from influence_core import errors
from influence_core.scores import evaluation

# Random ways to split the trainings that correlations are averaged over.
_NUM_SPLITS = 100


def noise_ceiling(
  outcomes: np.ndarray, *, seed: int
) -> evaluation.MeanInterval:
  """What the mean Spearman correlation of the best prediction would be.

  The correlations of halves are averaged over queries before they are
  converted: those of single queries are too noisy, and often negative. Where
  queries are alike this is the ceiling; where some are far more reliable than
  others it lies above it, the conversion being concave, and stays an upper
  bound. The formulas are those of Pearson's correlation: for normal outcomes
  the ceiling is at most 0.02 too high for that reason.

  Args:
    outcomes: [num_subsets, num_repeats, num_queries], at least two repeats;
      predictions are compared with their mean over the repeats.
    seed: of the splits, and of the interval.

  Returns:
    The ceiling, and its bootstrap interval over queries.

  Raises:
    errors.InputError: There is one repeat, so that nothing is known of noise.
  """
  correlations = _half_correlations(outcomes, seed)
  num_repeats = outcomes.shape[1]
  lengthening = num_repeats / (num_repeats // 2)
  found = evaluation.mean_interval(correlations, seed=seed)
  return evaluation.MeanInterval(*(_ceiling(x, lengthening) for x in found))


def _ceiling(correlation: float, lengthening: float) -> float:
  """Square root of the reliability of so many times as many trainings."""
  shared = max(correlation, 0.0)
  return float(np.sqrt(lengthening * shared / (1 + (lengthening - 1) * shared)))


def _half_correlations(outcomes: np.ndarray, seed: int) -> np.ndarray:
  """[num_queries] float64 correlations of halves, mean over random splits."""
  num_repeats = outcomes.shape[1]
  if num_repeats < 2:
    raise errors.InputError(
      f'outcomes have {num_repeats} repeat, expected at least 2, which can be '
      'compared'
    )
  half = num_repeats // 2
  generator = np.random.default_rng(seed)
  splits = [generator.permutation(num_repeats) for _ in range(_NUM_SPLITS)]
  if num_repeats == 2:
    splits = splits[:1]  # There is no other.
  return np.mean(
    [
      evaluation.spearman_correlations(
        outcomes[:, order[:half]].mean(axis=1),
        outcomes[:, order[half : 2 * half]].mean(axis=1),
      )
      for order in splits
    ],
    axis=0,
  )
