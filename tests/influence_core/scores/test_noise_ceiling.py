"""The noise ceiling where signal and noise are known."""

import numpy as np
import pytest
from scipy import stats

from influence_core import errors
from influence_core.scores import evaluation, noise_ceiling

NUM_SUBSETS = 400


def simulated(reliabilities, num_repeats, seed=0):
  """Signals [subset, query], and outcomes with noise of known variance.

  Args:
    reliabilities: [num_queries], what the signal has of the variance of one
      outcome.
    num_repeats: outcomes of each.
    seed: of both.
  """
  generator = np.random.default_rng(seed)
  shape = (NUM_SUBSETS, num_repeats, len(reliabilities))
  signal = generator.normal(size=(shape[0], shape[2])) * np.sqrt(reliabilities)
  noise = generator.normal(size=shape) * np.sqrt(1 - np.array(reliabilities))
  return signal, signal[:, None] + noise


def best_score(signal, outcomes):
  """What the best prediction reaches, which is the signal itself."""
  return evaluation.spearman_correlations(signal, outcomes.mean(axis=1)).mean()


@pytest.mark.parametrize('num_repeats', [2, 3, 4, 7])
@pytest.mark.parametrize('reliability', [0.2, 0.5, 0.9])
def test_ceiling_is_what_the_best_prediction_reaches(num_repeats, reliability):
  signal, outcomes = simulated([reliability] * 40, num_repeats)
  found = noise_ceiling.noise_ceiling(outcomes, seed=0)
  # Of Pearson correlations: square root of the part of the mean's variance.
  of_mean = reliability / (reliability + (1 - reliability) / num_repeats)
  exact = 6 / np.pi * np.arcsin(np.sqrt(of_mean) / 2)  # Of ranks of normals.
  assert best_score(signal, outcomes) == pytest.approx(exact, abs=0.01)
  # What formulas for Pearson correlations add (0.012), and chance.
  assert found.mean == pytest.approx(exact, abs=0.02)
  assert found.low < found.mean < found.high
  assert found.high - found.low < 0.05


def test_queries_that_differ_stay_below():
  reliabilities = np.random.default_rng(1).uniform(0, 1, 60)
  signal, outcomes = simulated(reliabilities, 2)
  found = noise_ceiling.noise_ceiling(outcomes, seed=0)
  assert best_score(signal, outcomes) < found.low


def test_two_repeats_by_hand():
  _, outcomes = simulated([0.6], 2)
  half = stats.spearmanr(outcomes[:, 0, 0], outcomes[:, 1, 0]).statistic
  found = noise_ceiling.noise_ceiling(outcomes, seed=0)
  assert found.mean == pytest.approx(np.sqrt(2 * half / (1 + half)))


def test_three_repeats_are_compared_one_with_one():
  """And the result is that of three times as many."""
  _, outcomes = simulated([0.6], 3)
  ranks = stats.spearmanr(outcomes[:, :, 0]).statistic
  pairs = ranks[np.triu_indices(3, 1)]
  found = noise_ceiling.noise_ceiling(outcomes, seed=0).mean
  ends = [np.sqrt(3 * r / (1 + 2 * r)) for r in (pairs.min(), pairs.max())]
  assert ends[0] < found < ends[1]


def test_nothing_but_noise_and_none_at_all():
  _, noise = simulated([0.0] * 40, 2)
  assert noise_ceiling.noise_ceiling(noise, seed=0).mean < 0.15
  # The other way round in all queries: no correlation is no negative ceiling.
  opposite = np.stack([noise[:, 0], -noise[:, 0]], axis=1)
  assert noise_ceiling.noise_ceiling(opposite, seed=0) == (0, 0, 0)
  same = np.repeat(noise[:, :1], 2, axis=1)
  assert noise_ceiling.noise_ceiling(same, seed=0) == pytest.approx((1, 1, 1))


def test_one_repeat_tells_nothing():
  _, outcomes = simulated([0.5], 1)
  with pytest.raises(errors.InputError, match='have 1 repeat, expected at'):
    noise_ceiling.noise_ceiling(outcomes, seed=0)
