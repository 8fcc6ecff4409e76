import numpy as np
import pytest

from influence_core import errors
from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions

EIGENVALUES = np.array([4.0, -2.0, 1.0, -0.5])
GENERATOR = np.random.default_rng(0)
EXAMPLES = GENERATOR.normal(size=(6, 4)).astype(np.float32)
NORMS = GENERATOR.uniform(1, 2, 6).astype(np.float32)
QUERIES = GENERATOR.normal(size=(3, 4)).astype(np.float32)


def influence(
  projections,
  squared_gradient_norms,
  *,
  weighted_queries,
  weights,
  normalization,
):
  """[num_queries, num_examples] scores, as a search computes them."""
  scores = weighted_queries @ projections.T
  scales = influence_scores.row_scales(
    influence_scores.self_influence(projections, weights),
    squared_gradient_norms,
    normalization,
  )
  return scores if scales is None else scores * scales


def score(**options):
  chosen = ScoreOptions(**options)
  weights = influence_scores.inverse_eigenvalues(EIGENVALUES, chosen)
  return influence(
    EXAMPLES,
    NORMS,
    weighted_queries=influence_scores.weight_queries(
      QUERIES, weights, chosen.normalization
    ),
    weights=weights,
    normalization=chosen.normalization,
  )


@pytest.mark.parametrize(
  ('options', 'weights'),
  [
    ({}, [1 / 4, 0, 1, 0]),
    ({'damping': 1.0}, [1 / 5, 0, 1 / 2, 0]),
    ({'negative_eigenvalues': 'abs'}, [1 / 4, 1 / 2, 1, 2]),
    ({'negative_eigenvalues': 'clip'}, [1 / 4, 1, 1, 1]),
    ({'projection_dim': 2}, [1 / 4, 0, 0, 0]),
    (
      {'projection_dim': 2, 'negative_eigenvalues': 'abs'},
      [1 / 4, 1 / 2, 0, 0],
    ),
  ],
)
def test_weights(options, weights):
  found = influence_scores.inverse_eigenvalues(
    EIGENVALUES, ScoreOptions(**options)
  )
  np.testing.assert_allclose(found, weights)
  expected = np.einsum('qk,k,nk->qn', QUERIES, weights, EXAMPLES)
  np.testing.assert_allclose(score(**options), expected, rtol=1e-5, atol=1e-6)


def test_relative_damping():
  relative = ScoreOptions(damping='0.5x')
  # Of a whole model, which adds the same to all and revives no pair.
  np.testing.assert_allclose(
    influence_scores.inverse_eigenvalues(EIGENVALUES, relative, 2.0),
    [1 / 5, 0, 1 / 2, 0],
  )
  # Of layers, which is their default too, and where nothing else is left.
  layers = np.array([2.0, 2.0, 4.0, 4.0])
  values = np.array([4.0, 1.0, 1.0, 0.0])
  np.testing.assert_allclose(
    influence_scores.inverse_eigenvalues(values, relative, layers),
    [1 / 5, 1 / 2, 1 / 3, 1 / 2],
  )
  np.testing.assert_allclose(
    influence_scores.inverse_eigenvalues(values, ScoreOptions(), layers),
    [1 / 4.2, 1 / 1.2, 1 / 1.4, 1 / 0.4],
  )
  # The default of eigenpairs is none, whatever is known.
  np.testing.assert_array_equal(
    influence_scores.inverse_eigenvalues(EIGENVALUES, ScoreOptions(), 2.0),
    influence_scores.inverse_eigenvalues(EIGENVALUES, ScoreOptions()),
  )
  with pytest.raises(errors.InputError, match='the mean curvature is not kno'):
    influence_scores.inverse_eigenvalues(EIGENVALUES, relative)
  with pytest.raises(errors.InputError, match='is -1, expected at least 0'):
    influence_scores.inverse_eigenvalues(EIGENVALUES, relative, -1.0)


def test_normalizations():
  plain = score()
  np.testing.assert_allclose(
    score(normalization='gradient_norm'), plain / np.sqrt(NORMS), rtol=1e-5
  )
  weights = np.array([1 / 4, 0, 1, 0])
  own = np.sqrt(np.square(EXAMPLES) @ weights)
  queries = np.sqrt(np.square(QUERIES) @ weights)
  cosine = score(normalization='cosine')
  np.testing.assert_allclose(cosine, plain / queries[:, None] / own, rtol=1e-4)
  assert np.abs(cosine).max() <= 1 + 1e-6


def test_examples_without_gradient_score_zero():
  weights = np.ones(4)
  found = influence(
    np.zeros((2, 4), np.float32),
    np.zeros(2, np.float32),
    weighted_queries=QUERIES,
    weights=weights,
    normalization='cosine',
  )
  np.testing.assert_array_equal(found, 0)


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'damping': -1.0}, 'damping is -1.0'),
    ({'damping': float('nan')}, 'damping is nan'),
    ({'negative_eigenvalues': 'zero'}, "is 'zero', expected one of drop"),
    ({'normalization': 'l2'}, "is 'l2', expected one of none"),
    ({'projection_dim': 5}, 'projection_dim is 5, expected 1 to 4'),
    ({'projection_dim': 0}, 'projection_dim is 0, expected at least 1'),
  ],
)
def test_bad_options(options, message):
  with pytest.raises(errors.InputError, match=message):
    score(**options)


def test_only_negative_eigenvalues_are_an_error_with_drop():
  with pytest.raises(errors.InputError, match="try 'abs'"):
    influence_scores.inverse_eigenvalues(np.array([-1.0]), ScoreOptions())


def test_some_pairs_are_chosen():
  """Of those that may be, the leading ones by |eigenvalue|."""
  eigenvalues = np.array([0.5, 3.0, 2.0, 4.0])
  chosen = np.array([True, False, True, True])
  for count, expected in ((None, [0, 2, 3]), (2, [2, 3]), (1, [3])):
    weights = influence_scores.inverse_eigenvalues(
      eigenvalues, ScoreOptions(projection_dim=count), None, chosen
    )
    assert np.flatnonzero(weights).tolist() == expected
  with pytest.raises(errors.InputError, match='expected 1 to 3'):
    influence_scores.inverse_eigenvalues(
      eigenvalues, ScoreOptions(projection_dim=4), None, chosen
    )


def test_random_pairs_are_any_of_them():
  eigenvalues = np.array([4.0, 3.0, 2.0, 1.0])
  counts = np.zeros(4)
  for seed in range(400):
    options = ScoreOptions(
      projection_dim=2, pair_choice='random', pair_seed=seed
    )
    weights = influence_scores.inverse_eigenvalues(eigenvalues, options)
    used = weights > 0
    np.testing.assert_array_equal(weights[used], 1 / eigenvalues[used])
    assert used.sum() == 2
    counts += used
  # Each in half of 400: five standard deviations of 10.
  assert np.abs(counts - 200).max() < 50
