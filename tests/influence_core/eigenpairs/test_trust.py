"""The estimate of a trace against explicit matrices."""

from typing import NamedTuple

import numpy as np
import pytest

from influence_core.eigenpairs import trust

SIZE = 40
GENERATOR = np.random.default_rng(0)


class Pairs(NamedTuple):
  """As far as `RitzPairs` is asked here."""

  eigenvalues: np.ndarray
  coefficients: np.ndarray


class Vectors(NamedTuple):
  """As far as `KrylovVectors` is asked here."""

  rows: np.ndarray

  def overlaps(self, vector):
    return self.rows @ vector


@pytest.fixture(name='matrix', scope='module')
def fixture_matrix():
  """Symmetric, with a few large eigenvalues and some below zero."""
  vectors, _ = np.linalg.qr(GENERATOR.normal(size=(SIZE, SIZE)))
  values = np.concatenate([[50, 30, 20], np.linspace(2, -0.5, SIZE - 3)])
  return vectors * values @ vectors.T


def estimate(matrix, num_probes, kept=None):
  return trust.estimate_trace(
    lambda vector: matrix @ vector,
    (GENERATOR.choice([-1.0, 1.0], SIZE) for _ in range(num_probes)),
    inner_product=lambda one, other: float(one @ other),
    num_parameters=SIZE,
    kept=kept,
  )


def leading(matrix, count):
  """Exact pairs, as combinations of the unit vectors and one more vector."""
  values, vectors = np.linalg.eigh(matrix)
  rows = np.eye(SIZE + 1, SIZE)  # The last Krylov vector has no part in pairs.
  return Vectors(rows), Pairs(values[::-1][:count], vectors.T[::-1][:count])


@pytest.mark.parametrize('num_kept', [0, 3])
def test_errors_are_as_large_as_stated(matrix, num_kept):
  kept = leading(matrix, num_kept) if num_kept else None
  found = [estimate(matrix, 8, kept) for _ in range(400)]
  traces = np.array([x.trace for x in found])
  spread = traces.std(ddof=1)
  trace = np.trace(matrix)
  # Five standard errors of the mean of 400 estimates.
  assert abs(traces.mean() - trace) < 5 * spread / 20
  stated = np.sqrt(np.mean([x.standard_error**2 for x in found]))
  # A spread of 400 has an error of 4 %, and so has the stated one.
  assert stated == pytest.approx(spread, rel=0.2)


def test_kept_pairs_leave_a_smaller_error(matrix):
  plain = estimate(matrix, 200)
  rest = estimate(matrix, 200, leading(matrix, 3))
  # By the variance 2 (|A|^2 - diagonal^2) of what is estimated.
  assert rest.standard_error < plain.standard_error / 5
  assert plain.captured == 0
  assert rest.captured == pytest.approx(100 / rest.trace)


def test_a_diagonal_is_exact():
  diagonal = np.arange(SIZE) - 3.0
  found = estimate(np.diag(diagonal), 2)
  assert found == trust.TraceEstimate(diagonal.sum(), 0.0, 0.0, 2, SIZE)
  assert found.mean_curvature == diagonal.mean()
