"""Indexes in bfloat16 and int8: errors are bounded, certified ranks exact."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces.columns import LayerColumns
from pipeline.index import vector_codec
from pipeline.search import (
  certify,
  error_bounds,
  retrieve,
  scan,
  selection as selection_lib,
  self_influence,
)
from tests.kit.synthetic_index import (
  EIGENVALUES,
  NUM_ROWS,
  QUERIES,
  VECTORS,
  make_index,
)

OPTIONS = [
  ScoreOptions(),
  ScoreOptions(damping=0.3, projection_dim=9),
  ScoreOptions(normalization='gradient_norm'),
  ScoreOptions(normalization='cosine'),
]


@pytest.fixture(name='exact', scope='module')
def fixture_exact(tmp_path_factory):
  return make_index(tmp_path_factory.mktemp('float32'), 'float32')


@pytest.fixture(name='low', scope='module', params=['bfloat16', 'int8'])
def fixture_low(request, tmp_path_factory):
  return make_index(tmp_path_factory.mktemp(request.param), request.param)


def all_scores(index, options):
  """[queries, examples] by position."""
  found = retrieve.search(index, QUERIES, k=NUM_ROWS, options=options)[None]
  order = np.argsort(found.proponents.positions, axis=1)
  return np.take_along_axis(found.proponents.scores, order, axis=1)


def test_values_are_rounded_to_nearest():
  vectors = np.array([[1.0, -3.0], [0.0, 0.0]], np.float32)
  eigenvalues = np.array([1.0, 9.0])
  int8 = vector_codec.VectorCodec('int8', eigenvalues)
  stored = int8.encode(vectors)
  # Both coordinates are one column scale: the largest integer.
  assert stored['values'].tolist() == [[127, -127], [0, 0]]
  np.testing.assert_allclose(int8.decode(stored), vectors, rtol=1e-6)
  bfloat16 = vector_codec.VectorCodec('bfloat16', eigenvalues)
  values = np.array([[1.0, 1.00390625, 1.01171875, -1e-30, 3e38]], np.float32)
  decoded = bfloat16.decode(bfloat16.encode(values))
  # Halfway cases go to the even neighbour.
  np.testing.assert_allclose(decoded[0, :3], [1.0, 1.0, 1.015625], rtol=0)
  np.testing.assert_allclose(decoded[0, 3:], values[0, 3:], rtol=2**-8)


def test_columns_of_a_layer_are_in_units_of_its_damping():
  """One without curvature has no more range than what it is divided by."""
  layers = [LayerColumns('a', 2, 1.0, 1.0), LayerColumns('b', 1, 40.0, 1.0)]
  int8 = vector_codec.VectorCodec('int8', np.array([0.9, 0.0, 5.0]), layers)
  np.testing.assert_allclose(int8.column_scales, np.sqrt([1.0, 0.1, 9.0]))
  stored = int8.encode(np.float32([[1.0, 0.1, 3.0]]))
  assert stored['values'].tolist() == [[127, 40, 127]]


def test_unknown_dtype_is_refused():
  with pytest.raises(errors.InputError, match="'int4', expected one"):
    vector_codec.VectorCodec('int4', np.ones(2))


def test_stored_error_norms_are_the_errors(low):
  stored = low.projections()
  scales = np.sqrt(EIGENVALUES)
  errors_found = np.linalg.norm((VECTORS - stored) / scales, axis=1)
  column = low.rows(columns=['projection_error'])['projection_error'].to_numpy()
  assert (column >= errors_found * (1 - 1e-6)).all()
  np.testing.assert_allclose(column, errors_found, rtol=1e-3)
  assert errors_found.max() > 0


@pytest.mark.parametrize('options', OPTIONS)
def test_bounds_hold_for_every_score(exact, low, options):
  found = retrieve.search(low, QUERIES, k=NUM_ROWS, options=options)[None]
  truth = all_scores(exact, options)
  for top in (found.proponents, found.opponents):
    expected = np.take_along_axis(truth, top.positions, axis=1)
    difference = np.abs(top.scores - expected)
    rounding = 1e-5 * np.abs(expected)
    assert (difference <= top.error_bounds + rounding).all()
    # They are bounds, not infinity: within a hundred times the true error.
    assert np.median(top.error_bounds) < 100 * np.median(difference)
  own = self_influence.top(low, k=NUM_ROWS, options=options)
  same_pass = found.self_influence
  np.testing.assert_array_equal(same_pass.scores, own.scores)
  np.testing.assert_array_equal(same_pass.error_bounds, own.error_bounds)
  every = exact.self_influence(options=options)[own.positions]
  assert (np.abs(own.scores - every) <= own.error_bounds + 1e-5 * every).all()


def test_exact_index_has_no_bounds(exact):
  found = exact.topk(QUERIES, 3)
  assert found.proponents.error_bounds is None
  options = ScoreOptions()
  bounds = error_bounds.ErrorBounds(exact, options)
  assert bounds.of_scores(QUERIES, found.proponents.positions) is None


@pytest.mark.parametrize('options', OPTIONS)
def test_certified_ranks_are_those_of_float32(exact, low, options):
  asked = []

  def exact_vectors(positions):
    asked.extend(positions.tolist())
    return VECTORS[positions]

  found = certify.search_certified(
    low, QUERIES, k=10, options=options, exact_vectors=exact_vectors
  )[None]
  expected = retrieve.search(exact, QUERIES, k=10, options=options)[None]
  for name in ('proponents', 'opponents'):
    one, other = getattr(found, name), getattr(expected, name)
    assert one.certified.all()
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.scores, other.scores)
  # Few examples are projected again, and none twice.
  assert len(asked) == len(set(asked)) < NUM_ROWS / 4


def test_certified_with_groups_and_without_the_query_itself(exact, low):
  selection = selection_lib.Selection(
    group_by='label', excluded_ids=tuple(f'f__{i}' for i in range(5))
  )
  arguments = {
    'k': 6,
    'options': ScoreOptions(),
    'selection': selection,
  }
  queries = VECTORS[:5]
  found = certify.search_certified(
    low, queries, exact_vectors=lambda x: VECTORS[x], **arguments
  )
  expected = retrieve.search(exact, queries, **arguments)
  assert found.keys() == expected.keys()
  for value in expected:
    for name in ('proponents', 'opponents'):
      one, other = getattr(found[value], name), getattr(expected[value], name)
      np.testing.assert_array_equal(one.positions, other.positions)
      assert one.certified.all()


def test_what_is_not_certain_is_said(low, monkeypatch):
  """With as many candidates as leaders, the last ranks cannot be sure."""
  monkeypatch.setattr(certify, '_CANDIDATES', (1,))
  found = certify.search_certified(
    low,
    QUERIES,
    k=50,
    options=ScoreOptions(),
    exact_vectors=lambda x: VECTORS[x],
  )[None]
  assert found.proponents.certified[:, 0].all()
  assert not found.proponents.certified[:, -1].any()


def test_upper_bounds_are_above_every_score(exact, low):
  options = ScoreOptions(normalization='cosine')
  leading = scan.scan(
    low,
    QUERIES,
    k=NUM_ROWS,
    options=options,
    selection=selection_lib.EVERYTHING,
    upper_bounds=True,
  )[None]
  truth = all_scores(exact, options)
  for end, sign in ((leading.highest, 1), (leading.lowest, -1)):
    scores = np.take_along_axis(sign * truth, end.positions, axis=1)
    assert (end.scores >= scores).all()


@pytest.mark.slow
@pytest.mark.parametrize('dtype', ['bfloat16', 'int8'])
def test_commands(influence, task_flags, basis, index, tmp_path, dtype):
  """An index in low precision, certified, gives the answer of float32."""
  command = ['--basis', basis, '--index', tmp_path, '--range_size', 40]
  made = influence('project', *task_flags, *command, '--vector_dtype', dtype)
  assert made.status == 0, made.stderr
  assert influence('verify', '--index', tmp_path).status == 0
  query = ['--query_split', 'test[:3]', '--k', 5, '--json']
  plain = influence('topk', *task_flags, '--index', tmp_path, *query).json
  assert all(row['error_bound'] > 0 for row in plain['results'])
  exact = influence('topk', *task_flags, '--index', index, *query).json
  sure = influence(
    'topk', *task_flags, '--index', tmp_path, '--certify', *query
  ).json
  for row, expected in zip(sure['results'], exact['results'], strict=True):
    assert row['certified']
    assert row['id'] == expected['id']
    # Projected again in batches of other sizes.
    np.testing.assert_allclose(row['score'], expected['score'], rtol=1e-4)
  own = influence('self-influence', '--index', tmp_path, '--json').json
  assert all(row['error_bound'] > 0 for row in own['results'])
  other = influence(
    'topk',
    *task_flags,
    *('--index', tmp_path, '--certify', '--basis_dtype', 'bfloat16', *query),
  )
  assert 'give --basis_dtype float32' in other.error_line
