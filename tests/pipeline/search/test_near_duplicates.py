"""Examples with gradients of one direction, found among all others."""

import numpy as np
import pytest

from influence_core.scores.options import ScoreOptions
from pipeline.search import near_duplicates
from tests.kit import synthetic_index
from tests.kit.synthetic_index import EIGENVALUES, VECTORS

AT_LEAST = 0.99


@pytest.fixture(name='vectors', scope='module')
def fixture_vectors():
  vectors = VECTORS.copy()
  vectors[17] = 2 * vectors[5]
  vectors[2000] = vectors[5] + 1e-3 * vectors[6]
  vectors[100] = -vectors[50]
  return vectors


@pytest.fixture(name='index', scope='module')
def fixture_index(vectors, tmp_path_factory):
  path = tmp_path_factory.mktemp('copies')
  return synthetic_index.make_index(path, 'float32', vectors=vectors)


def find(index, positions, **more):
  return near_duplicates.find(
    index,
    np.array(positions),
    at_least=AT_LEAST,
    options=ScoreOptions(),
    **more,
  )


def test_pairs_are_those_of_all_cosines(index, vectors):
  asked = np.array([3, 5, 17, 50, 100])
  scaled = vectors / np.sqrt(EIGENVALUES)
  scaled /= np.linalg.norm(scaled, axis=1, keepdims=True)
  cosines = scaled[asked] @ scaled.T
  cosines[np.arange(len(asked)), asked] = -1
  nearest = cosines.argmax(axis=1)
  expected = {
    frozenset((one, other))
    for one, other, cosine in zip(asked, nearest, cosines.max(1), strict=True)
    if cosine >= AT_LEAST
  }
  assert frozenset((5, 17)) in expected
  found = find(index, asked)
  assert {frozenset(pair[:2]) for pair in found} == expected
  assert len(found) == len(expected)  # Each once, though both were asked for.
  assert [pair.cosine for pair in found] == sorted(
    (pair.cosine for pair in found), reverse=True
  )
  [pair] = [pair for pair in found if {pair.first, pair.second} == {5, 17}]
  assert pair.cosine == pytest.approx(1, abs=1e-5)  # float32.


def test_others_may_be_conditioned(index):
  [pair] = find(index, [5], where="id <> 'f__17'")
  assert (pair.first, pair.second) == (5, 2000)
