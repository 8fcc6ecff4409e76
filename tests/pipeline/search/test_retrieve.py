import itertools

import numpy as np
import pyarrow as pa
import pytest

from influence_core import errors
from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions
from pipeline import open_index
from pipeline.index import (
  block_reader,
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
  vector_codec,
)
from pipeline.search import retrieve, selection as selection_lib, self_influence
from pipeline.storage import files as storage

EIGENVALUES = (4.0, 2.0, 1.0, -0.5)
CODEC = vector_codec.VectorCodec('float32', np.array(EIGENVALUES))
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
        CODEC,
      )
    )
  provenance = manifest_lib.Provenance(
    {}, '', EIGENVALUES, {'basis': 'b', 'dtype': 'float32'}
  )
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
  monkeypatch.setattr(block_reader, '_BLOCK_BYTES', 64 * 16)
  monkeypatch.setattr(block_reader, '_PIECE_BYTES', 100 * 16)
  options = ScoreOptions()
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
  options = ScoreOptions(normalization='gradient_norm')
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
  options = ScoreOptions(
    normalization='gradient_norm', negative_eigenvalues='abs'
  )
  top = self_influence.top(index, k=500, options=options)
  expected = np.square(VECTORS) @ (1 / np.abs(EIGENVALUES)) / NORMS
  np.testing.assert_allclose(top.scores[0], np.sort(expected)[::-1], rtol=1e-6)


def test_shards_are_read_ahead_and_checked(tmp_path):
  index = make_index(str(tmp_path), 5)
  name = index.manifest.shards[3].vectors.name
  (tmp_path / 'shards' / name).unlink()
  with pytest.raises(storage.DamagedFileError, match='is missing'):
    retrieve.search(index, QUERIES, k=1, options=ScoreOptions())


def test_bad_arguments(tmp_path):
  index = make_index(str(tmp_path), 1)
  options = ScoreOptions()
  with pytest.raises(errors.InputError, match='k is 0'):
    retrieve.search(index, QUERIES, k=0, options=options)
  with pytest.raises(errors.InputError, match=r'shape \(9, 3\), expected 4'):
    retrieve.search(index, QUERIES[:, :3], k=1, options=options)


def make_labelled(path):
  rows = pa.table(
    {
      'id': [f'f__{i}' for i in range(500)],
      'loss': pa.array(np.zeros(500), pa.float32()),
      'squared_gradient_norm': pa.array(NORMS),
      'label': np.arange(500) % 3,
      'length': np.arange(500),
    }
  )
  shard = index_format.write_shard(
    path,
    index_format.ExampleRange('f', 0, 500, 'x'),
    index_format.ShardContent(VECTORS, rows, {}),
    CODEC,
  )
  provenance = manifest_lib.Provenance(
    {}, '', EIGENVALUES, {'basis': 'b', 'dtype': 'float32'}
  )
  manifest_lib.publish(path, provenance, (shard,))
  return open_index(path)


def test_condition_leaves_the_others_out(tmp_path):
  index = make_labelled(str(tmp_path))
  found = index.topk(QUERIES, 7, where='label = 2 and length < 300')
  scores, _, _ = brute_force(ScoreOptions(), 1)
  eligible = np.arange(2, 300, 3)
  for query, row in enumerate(scores[:, eligible]):
    best = eligible[np.lexsort((eligible, -row))[:7]]
    assert found.proponents.positions[query].tolist() == best.tolist()
  nothing = index.topk(QUERIES, 7, where='label = 9')
  assert nothing.opponents.positions.shape == (9, 0)


def test_groups_are_searched_apart(tmp_path):
  index = make_labelled(str(tmp_path))
  found = retrieve.search(
    index,
    QUERIES,
    k=4,
    options=ScoreOptions(),
    selection=selection_lib.Selection(group_by='label'),
  )
  assert sorted(found) == [0, 1, 2]
  for label, result in found.items():
    alone = index.topk(QUERIES, 4, where=f'label = {label}')
    for name in ('proponents', 'opponents', 'self_influence'):
      np.testing.assert_array_equal(
        getattr(result, name).positions, getattr(alone, name).positions
      )


def test_a_query_does_not_find_itself(tmp_path):
  index = make_labelled(str(tmp_path))
  queries = index.vectors(range(20))
  selection = selection_lib.Selection(
    excluded_ids=tuple(f'f__{i}' for i in range(20))
  )
  found = retrieve.search(
    index,
    queries,
    k=500,
    options=ScoreOptions(),
    selection=selection,
  )[None]
  everything = index.topk(queries, 500)
  for name in ('proponents', 'opponents'):
    some, every = getattr(found, name), getattr(everything, name)
    for query in range(20):
      expected = every.positions[query][every.positions[query] != query]
      np.testing.assert_array_equal(some.positions[query, :-1], expected)
      assert some.positions[query, -1] == retrieve.NO_POSITION


@pytest.mark.parametrize('normalization', ['none', 'gradient_norm', 'cosine'])
def test_self_influence_comes_in_the_same_pass(tmp_path, normalization):
  index = make_labelled(str(tmp_path))
  options = ScoreOptions(
    negative_eigenvalues='abs', normalization=normalization
  )
  found = index.topk(QUERIES, 9, options=options).self_influence
  own = index.self_influence(options=options)
  best = np.lexsort((np.arange(500), -own))[:9]
  np.testing.assert_array_equal(found.positions[0], best)
  np.testing.assert_array_equal(found.scores[0], own[best])


def test_notebook_interface(tmp_path):
  index = make_labelled(str(tmp_path))
  assert (index.num_examples, index.generation) == (500, 1)
  np.testing.assert_array_equal(index.projections(), VECTORS)
  np.testing.assert_array_equal(index.projections([4, 2]), VECTORS[[4, 2]])
  one = index.topk(QUERIES[0], k=3)
  assert one.proponents.positions.shape == (1, 3)
  with pytest.raises(errors.InputError, match="no column 'color'; it has id"):
    index.check_column('color')
  with pytest.raises(errors.InputError, match='no generation 7; it has 1'):
    open_index(str(tmp_path), generation=7)
