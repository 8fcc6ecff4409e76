"""Sums over a corpus against all pairs of its examples."""

import itertools

import numpy as np
import pytest

from influence_core.scores.options import ScoreOptions
from pipeline.search import corpus_summary, row_blocks
from tests.kit import synthetic_index
from tests.kit.synthetic_index import LAYERS, VECTORS


@pytest.fixture(name='index', scope='module')
def fixture_index(tmp_path_factory):
  path = tmp_path_factory.mktemp('float32')
  return synthetic_index.make_index(path, 'float32', LAYERS)


@pytest.mark.parametrize('normalization', ['none', 'gradient_norm', 'cosine'])
def test_classes_against_all_pairs(index, normalization):
  options = ScoreOptions(normalization=normalization)
  found = corpus_summary.summarise(index, options, class_column='label').classes
  labels = np.array(index.rows(columns=['label'])['label'].to_pylist())
  scores, _ = row_blocks.all_scores(index, VECTORS, options)
  # Of each row on each query, without those on themselves.
  pairs = scores.T.astype(np.float64)
  np.fill_diagonal(pairs, np.nan)
  assert found.classes == sorted(set(labels))
  for i, one in enumerate(found.classes):
    assert found.counts[i] == (labels == one).sum()
    for j, other in enumerate(found.classes):
      expected = np.nanmean(pairs[labels == one][:, labels == other])
      # Sums of float32 scores.
      np.testing.assert_allclose(
        found.means[i, j], expected, rtol=1e-4, atol=1e-5 * np.nanmax(pairs)
      )


def test_layers_share_self_influence(index):
  options = ScoreOptions()
  found = corpus_summary.summarise(index, options)
  own = VECTORS.astype(np.float64) ** 2 * index.column_weights(options)
  np.testing.assert_allclose(found.self_influence, own.sum(axis=1).mean())
  edges = np.cumsum([0, *(layer.count for layer in LAYERS)])
  expected = [
    own[:, a:b].sum() / own.sum() for a, b in itertools.pairwise(edges)
  ]
  assert list(found.by_layer) == [layer.name for layer in LAYERS]
  np.testing.assert_allclose(list(found.by_layer.values()), expected)
  assert found.classes is None


def test_too_many_values_are_no_classes(index):
  found = corpus_summary.summarise(index, ScoreOptions(), class_column='id')
  assert found.classes is None
