import itertools

import numpy as np
import pyarrow as pa
import pytest

from influence_core import errors, influence_scores
from pipeline import index_format, index_reader, retrieve, storage
from pipeline import manifest as manifest_lib

EIGENVALUES = (4.0, 2.0, 1.0, -0.5)
GENERATOR = np.random.default_rng(0)
# Few distinct values, so that many scores are exactly equal.
VECTORS = GENERATOR.integers(-2, 3, size=(500, 4)).astype(np.float32)
NORMS = GENERATOR.integers(1, 3, size=500).astype(np.float32)
QUERIES = GENERATOR.integers(-2, 3, size=(9, 4)).astype(np.float32)


def make_index(path, num_shards):
  edges = np.linspace(0, 500, num_shards + 1).astype(int)
  shards = []
  for start, stop in itertools.pairwise(edges):
    rows = pa.table(
      {
        'id': [f'f__{i}' for i in range(start, stop)],
        'loss': pa.array(np.zeros(stop - start), pa.float32()),
        'squared_gradient_norm': pa.array(NORMS[start:stop]),
      }
    )
    shards.append(
      index_format.write_shard(
        path,
        index_format.ExampleRange('f', int(start), int(stop), 'x'),
        index_format.ShardContent(VECTORS[start:stop], rows, {}),
      )
    )
  provenance = manifest_lib.Provenance({}, '', EIGENVALUES, {'basis': 'b'})
  manifest_lib.publish(path, provenance, tuple(shards))
  return index_reader.Index(path)


def brute_force(options, k):
  weights = influence_scores.inverse_eigenvalues(np.array(EIGENVALUES), options)
  scores = QUERIES * weights @ VECTORS.T
  if options.normalization == 'gradient_norm':
    scores = scores / np.sqrt(NORMS)
  best = [np.lexsort((np.arange(500), -row))[:k] for row in scores]
  worst = [np.lexsort((np.arange(500), row))[:k] for row in scores]
  return scores, np.array(best), np.array(worst)


@pytest.mark.parametrize('num_shards', [1, 3, 17])
@pytest.mark.parametrize('k', [1, 10, 500])
def test_equals_brute_force_with_ties(tmp_path, monkeypatch, num_shards, k):
  monkeypatch.setattr(retrieve, '_BLOCK_ROWS', 64)
  options = influence_scores.ScoreOptions()
  index = make_index(str(tmp_path), num_shards)
  found = retrieve.search(index, QUERIES, k=k, options=options)[None]
  proponents, opponents = found.proponents, found.opponents
  scores, best, worst = brute_force(options, k)
  np.testing.assert_array_equal(proponents.positions, best)
  np.testing.assert_array_equal(opponents.positions, worst)
  np.testing.assert_allclose(
    opponents.scores, np.take_along_axis(scores, worst, 1), rtol=1e-6
  )


def test_normalised_scores_and_small_index(tmp_path):
  options = influence_scores.ScoreOptions(normalization='gradient_norm')
  index = make_index(str(tmp_path), 2)
  found = retrieve.search(index, QUERIES, k=10_000, options=options)
  proponents = found[None].proponents
  assert proponents.positions.shape == (9, 500)
  scores, best, _ = brute_force(options, 500)
  np.testing.assert_allclose(
    proponents.scores, np.take_along_axis(scores, best, 1), rtol=1e-6
  )


def test_rows_come_back_by_position(tmp_path):
  index = make_index(str(tmp_path), 7)
  rows = index.rows([499, 0, 71, 72, 0])
  assert rows['id'].to_pylist() == ['f__499', 'f__0', 'f__71', 'f__72', 'f__0']
  assert index.rows(columns=['id']).num_rows == 500
  assert index.rows([]).column_names == index.schema.names
  np.testing.assert_array_equal(
    index.vectors([7, 3, 499]), VECTORS[[7, 3, 499]]
  )
  with pytest.raises(errors.InputError, match='positions are 3 to 500'):
    index.rows([500, 3])


def test_self_influence_with_gradient_norm(tmp_path):
  index = make_index(str(tmp_path), 3)
  options = influence_scores.ScoreOptions(
    normalization='gradient_norm', negative_eigenvalues='abs'
  )
  top = retrieve.top_self_influence(index, k=500, options=options)
  expected = np.square(VECTORS) @ (1 / np.abs(EIGENVALUES)) / NORMS
  np.testing.assert_allclose(top.scores[0], np.sort(expected)[::-1], rtol=1e-6)


def test_shards_are_read_ahead_and_checked(tmp_path):
  index = make_index(str(tmp_path), 5)
  name = index.manifest.shards[3].vectors.name
  (tmp_path / 'shards' / name).unlink()
  with pytest.raises(storage.DamagedFileError, match='is missing'):
    retrieve.search(
      index, QUERIES, k=1, options=influence_scores.ScoreOptions()
    )


def test_bad_arguments(tmp_path):
  index = make_index(str(tmp_path), 1)
  options = influence_scores.ScoreOptions()
  with pytest.raises(errors.InputError, match='k is 0'):
    retrieve.search(index, QUERIES, k=0, options=options)
  with pytest.raises(errors.InputError, match=r'shape \(9, 3\), expected 4'):
    retrieve.search(index, QUERIES[:, :3], k=1, options=options)
