"""Several indexes of one corpus, searched as one, against brute force."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces.columns import LayerColumns
from pipeline.beam import runner_options, scan_on_beam
from pipeline.beam.engines import EngineChoice
from pipeline.index import block_reader, ensemble, in_step
from pipeline.search import (
  certify,
  retrieve,
  row_blocks,
  scan,
  selection as selection_lib,
  self_influence,
)
from tests.kit import synthetic_index
from tests.kit.synthetic_index import LAYERS, NUM_ROWS

# Of models with other widths, on other shards, in other precision.
GENERATOR = np.random.default_rng(7)
SCALES = (0.5, 2.0, 0.125)
EIGENVALUES = (
  synthetic_index.EIGENVALUES,
  tuple((3.0 / np.arange(1, 8)).tolist()),
  tuple((0.2 / np.arange(1, 6) ** 3).tolist()),
)
EDGES = (
  (0, 1100, 1101, NUM_ROWS),
  (0, 17, 900, 2999, NUM_ROWS),
  (0, NUM_ROWS),
)
MORE_LAYERS = (
  LayerColumns('Dense_0', 3, 1.0, 1.0),
  LayerColumns('Head', 4, 0.3, 1.0),
)
OPTIONS = [
  ScoreOptions(),
  ScoreOptions(damping=0.3, normalization='gradient_norm'),
  ScoreOptions(normalization='cosine'),
]


def draw(count, values):
  vectors = GENERATOR.normal(size=(count, len(values))) * np.sqrt(values)
  sizes = np.exp(GENERATOR.normal(size=(count, 1)))
  return (vectors * sizes).astype(np.float32)


VECTORS = [draw(NUM_ROWS, values) for values in EIGENVALUES]
QUERIES = [draw(5, values) for values in EIGENVALUES]
NORMS = [
  (np.square(x).sum(axis=1) * factor).astype(np.float32)
  for x, factor in zip(VECTORS, (1.5, 1.1, 3.0), strict=True)
]
ALL_QUERIES = np.concatenate(QUERIES, axis=1)


def make(path, dtypes=('float32',) * 3, rejected=((), (), ()), layers=False):
  """Three indexes of one corpus."""
  names = (LAYERS, MORE_LAYERS, (LayerColumns('Head', 5, 0.1, 1.0),))
  return [
    synthetic_index.make_index(
      path / str(number),
      dtypes[number],
      names[number] if layers else (),
      vectors=VECTORS[number],
      norms=NORMS[number],
      eigenvalues=EIGENVALUES[number],
      edges=EDGES[number],
      rejected=rejected[number],
    )
    for number in range(3)
  ]


@pytest.fixture(name='exact', scope='module')
def fixture_exact(tmp_path_factory):
  return ensemble.Ensemble(make(tmp_path_factory.mktemp('exact')), SCALES)


@pytest.fixture(name='low', scope='module')
def fixture_low(tmp_path_factory):
  dtypes = ('int8', 'float32', 'bfloat16')
  return ensemble.Ensemble(make(tmp_path_factory.mktemp('low'), dtypes), SCALES)


def brute_force(options, scales=SCALES):
  """[num_queries, num_rows] scores and [num_rows] self-influence, float64."""
  scores, own = 0.0, 0.0
  for scale, values, queries, rows, norms in zip(
    scales, EIGENVALUES, QUERIES, VECTORS, NORMS, strict=True
  ):
    weights = 1 / (np.array(values) + (options.damping or 0))
    queries, rows = queries.astype(np.float64), rows.astype(np.float64)
    found = queries * weights @ rows.T
    squares = np.square(rows) @ weights
    if options.normalization == 'cosine':
      found /= np.sqrt(np.square(queries) @ weights)[:, None] * np.sqrt(squares)
    if options.normalization == 'gradient_norm':
      found /= np.sqrt(norms)
      squares /= norms
    scores, own = scores + scale * found, own + scale * squares
  return scores, own


def all_scores(top):
  order = np.argsort(top.positions, axis=1)
  return np.take_along_axis(top.scores, order, axis=1)


@pytest.mark.parametrize('options', OPTIONS)
def test_both_ends_are_brute_force(exact, monkeypatch, options):
  monkeypatch.setattr(block_reader, '_BLOCK_BYTES', 4 * 12 * 100)
  monkeypatch.setattr(block_reader, '_PIECE_BYTES', 4 * 12 * 150)
  expected, own = brute_force(options)
  found = retrieve.search(exact, ALL_QUERIES, k=20, options=options)[None]
  for top, sign in ((found.proponents, 1), (found.opponents, -1)):
    best = np.argsort(-sign * expected, axis=1)[:, :20]
    np.testing.assert_array_equal(top.positions, best)
    np.testing.assert_allclose(  # Weighted queries are float32.
      top.scores, np.take_along_axis(expected, best, axis=1), rtol=1e-5
    )
  best = np.argsort(-own)[:20]
  np.testing.assert_array_equal(found.self_influence.positions[0], best)
  np.testing.assert_allclose(
    found.self_influence.scores[0], own[best], rtol=1e-5
  )
  alone = self_influence.top(exact, k=20, options=options)
  np.testing.assert_array_equal(alone.scores, found.self_influence.scores)
  every, ids = row_blocks.all_scores(exact, ALL_QUERIES, options)
  # float32 sums over up to 24 terms.
  np.testing.assert_allclose(
    every, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
  )
  assert ids == [f'f__{i}' for i in range(NUM_ROWS)]


def test_an_index_alone_is_an_ensemble(exact):
  index = exact.members[0].index
  alone = ensemble.Ensemble([index])
  options = ScoreOptions(normalization='gradient_norm')
  one, other = (
    retrieve.search(x, QUERIES[0], k=9, options=options)[None]
    for x in (index, alone)
  )
  for name in ('proponents', 'opponents', 'self_influence'):
    for values in ('positions', 'scores'):
      np.testing.assert_array_equal(
        getattr(getattr(one, name), values),
        getattr(getattr(other, name), values),
      )


def test_the_mean_by_default(exact):
  indexes = [member.index for member in exact.members]
  found = retrieve.search(
    ensemble.Ensemble(indexes), ALL_QUERIES, k=NUM_ROWS, options=ScoreOptions()
  )[None]
  expected, _ = brute_force(ScoreOptions(), (1 / 3,) * 3)
  np.testing.assert_allclose(
    all_scores(found.proponents), expected, atol=1e-5 * np.abs(expected).max()
  )


@pytest.mark.parametrize('options', OPTIONS)
def test_conditions_groups_and_the_query_itself(exact, options):
  ids = tuple(f'f__{i}' for i in (3, 4, 1100, 1101, 2999))
  selection = selection_lib.Selection(
    where="label = 1 or id < 'f__2'", group_by='label', excluded_ids=ids
  )
  expected, _ = brute_force(options)
  names = exact.rows(columns=['id'])['id'].to_pylist()
  found = retrieve.search(
    exact, ALL_QUERIES, k=6, options=options, selection=selection
  )
  for label, result in found.items():
    for query, example_id in enumerate(ids):
      allowed = [
        i
        for i in range(NUM_ROWS)
        if i % 2 == label and (label or names[i] < 'f__2')
        if names[i] != example_id
      ]
      order = np.argsort(-expected[query, allowed])[:6]
      assert result.proponents.positions[query].tolist() == [
        allowed[i] for i in order
      ]


@pytest.mark.parametrize('options', OPTIONS)
def test_bounds_of_members_add_up(exact, low, options):
  truth, own = brute_force(options)
  found = retrieve.search(low, ALL_QUERIES, k=NUM_ROWS, options=options)[None]
  for top in (found.proponents, found.opponents):
    expected = np.take_along_axis(truth, top.positions, axis=1)
    difference = np.abs(top.scores - expected)
    assert (difference <= top.error_bounds + 1e-5 * np.abs(expected)).all()
    assert np.median(top.error_bounds) < 200 * np.median(difference)
  top = found.self_influence
  expected = own[top.positions]
  difference = np.abs(top.scores - expected)
  assert (difference <= top.error_bounds + 1e-5 * expected).all()
  assert (
    retrieve.search(exact, ALL_QUERIES, k=1, options=options)[
      None
    ].proponents.error_bounds
    is None
  )


@pytest.mark.parametrize('options', OPTIONS)
def test_certified_ranks_are_those_of_float32(exact, low, options):
  asked = []

  def exact_vectors(positions):
    asked.extend(positions.tolist())
    return np.concatenate([x[positions] for x in VECTORS], axis=1)

  found = certify.search_certified(
    low, ALL_QUERIES, k=10, options=options, exact_vectors=exact_vectors
  )[None]
  expected = retrieve.search(exact, ALL_QUERIES, k=10, options=options)[None]
  for name in ('proponents', 'opponents'):
    one, other = getattr(found, name), getattr(expected, name)
    assert one.certified.all()
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.scores, other.scores)
  assert len(asked) == len(set(asked)) < NUM_ROWS / 3


def test_upper_bounds_are_above_every_score(low):
  options = ScoreOptions(normalization='gradient_norm')
  leading = scan.scan(
    low, ALL_QUERIES, k=NUM_ROWS, options=options, upper_bounds=True
  )[None]
  truth, _ = brute_force(options)
  for end, sign in ((leading.highest, 1), (leading.lowest, -1)):
    expected = np.take_along_axis(sign * truth, end.positions, axis=1)
    assert (end.scores >= expected * (1 - sign * 1e-6)).all()


def test_what_one_rejects_is_left_out_of_all(tmp_path):
  rejected = ((0, 5, 1100), (5, 16, 17), (2998, 2999))
  found = ensemble.Ensemble(make(tmp_path, rejected=rejected), SCALES)
  kept = np.setdiff1d(np.arange(NUM_ROWS), np.concatenate(rejected))
  assert (found.num_examples, found.num_left_out) == (len(kept), 7)
  assert found.rows()['id'].to_pylist() == [f'f__{i}' for i in kept]
  expected, own = brute_force(ScoreOptions())
  top = retrieve.search(found, ALL_QUERIES, k=50, options=ScoreOptions())[None]
  best = np.argsort(-expected[:, kept], axis=1)[:, :50]
  np.testing.assert_array_equal(top.proponents.positions, best)
  np.testing.assert_array_equal(
    top.self_influence.positions[0], np.argsort(-own[kept])[:50]
  )
  some = [len(kept) - 1, 0, 1094, 13]
  np.testing.assert_array_equal(
    found.vectors(some),
    np.concatenate([x[kept[some]] for x in VECTORS], axis=1),
  )
  ids = found.rows(some, ['id'])['id'].to_pylist()
  assert ids == [f'f__{i}' for i in kept[some]]
  # What all of them reject is left out of each.
  same = ensemble.Ensemble(make(tmp_path / 's', rejected=((7, 8),) * 3))
  assert (same.num_examples, same.num_left_out) == (NUM_ROWS - 2, 0)


@pytest.mark.parametrize('numbers', [[0], [1], [2], [0, 2]])
def test_shards_of_the_first_are_read_in_step(tmp_path, numbers):
  rejected = ((3, 1099), (0, 1101), (1102,))
  opened = ensemble.Ensemble(make(tmp_path, rejected=rejected))
  kept = np.setdiff1d(np.arange(NUM_ROWS), np.concatenate(rejected))
  columns = [['id'], ['label', 'id'], []]
  seen = []
  for blocks in in_step.read_in_step(opened, columns, numbers=numbers):
    positions = blocks[0].first + np.arange(len(blocks[0].vectors))
    for block, vectors in zip(blocks, VECTORS, strict=True):
      assert block.first == blocks[0].first
      np.testing.assert_array_equal(block.vectors, vectors[kept[positions]])
    assert blocks[0].rows['id'].equals(blocks[1].rows['id'])
    seen += kept[positions].tolist()
  wanted = [range(*EDGES[0][n : n + 2]) for n in numbers]
  assert seen == [i for part in wanted for i in part if i in set(kept)]


def test_damage_of_a_later_member_is_found(tmp_path):
  indexes = make(tmp_path)
  shard = indexes[1].manifest.shards[3]
  path = tmp_path / '1' / 'shards' / shard.vectors.name
  data = bytearray(path.read_bytes())
  data[-1] ^= 1
  path.write_bytes(data)
  with pytest.raises(errors.InputError, match='altered'):
    retrieve.search(
      ensemble.Ensemble(indexes), ALL_QUERIES, k=1, options=ScoreOptions()
    )


def test_layers_of_one_name_have_one_share(tmp_path):
  opened = ensemble.Ensemble(make(tmp_path, layers=True), SCALES)
  options = ScoreOptions(damping=0.0, normalization='gradient_norm')
  found = retrieve.search(
    opened, ALL_QUERIES, k=15, options=options, by_layer=True
  )[None]
  expected, own = brute_force(options)
  for top, truth in (
    (found.proponents, expected),
    (found.self_influence, own[None]),
  ):
    assert list(top.by_layer) == ['Conv_0', 'Dense_0', 'Dense_1', 'Head']
    total = sum(top.by_layer.values())
    np.testing.assert_allclose(
      total, np.take_along_axis(truth, top.positions, axis=1), rtol=1e-5
    )
  some = ScoreOptions(damping=0.0, layers='Dense_0|Head', normalization='none')
  share = ScoreOptions(damping=0.0, layers='Head', normalization='none')
  with pytest.raises(errors.InputError, match=r'none of .*/0: Conv_0, De'):
    opened.column_weights(share)
  top = retrieve.search(opened, ALL_QUERIES, k=9, options=some)[None].proponents
  queries = opened.weight_queries(ALL_QUERIES, some)
  columns = np.flatnonzero(opened.column_weights(some))
  assert columns.tolist() == [5, 6, 7, 8, *range(12, 24)]
  rows = np.concatenate(VECTORS, axis=1)
  order = np.argsort(-queries @ rows.T, axis=1)[:, :9]
  np.testing.assert_array_equal(top.positions, order)


def test_on_a_runner(exact, monkeypatch):
  monkeypatch.setattr(scan_on_beam, '_SHARDS_PER_ELEMENT', 1)
  runner = scan_on_beam.on_runner(
    runner_options.make_options(
      EngineChoice('local', 2, ['--direct_running_mode=in_memory']), tell=print
    )
  )
  arguments = {'k': 7, 'options': ScoreOptions(normalization='cosine')}
  found, expected = (
    retrieve.search(exact, ALL_QUERIES, scan=way, **arguments)[None]
    for way in (runner, scan.scan)
  )
  for name in ('proponents', 'opponents', 'self_influence'):
    one, other = getattr(found, name), getattr(expected, name)
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_other_corpora_are_refused(tmp_path):
  first, second, _ = make(tmp_path)
  more = {
    'vectors': VECTORS[1],
    'norms': NORMS[1],
    'eigenvalues': EIGENVALUES[1],
  }
  changed, shorter = (
    synthetic_index.make_index(tmp_path / name, 'float32', **more, **other)
    for name, other in (
      ('changed', {'corpus': 'd'}),
      ('shorter', {'edges': (0, 2990)}),
    )
  )
  for other, message in (
    (changed, 'of the same names have another size, time or checksum'),
    (shorter, 'it has records 0 to 2989 of f, not records 0 to 2999; project'),
  ):
    with pytest.raises(errors.InputError, match=message):
      ensemble.Ensemble([first, second, other])
  for scales, message in (
    ((1.0,), 'has 1 numbers, expected one for each of 2'),
    ((1.0, 0.0), 'is 0.0, expected a positive number'),
    ((1.0, float('nan')), 'is nan'),
  ):
    with pytest.raises(errors.InputError, match=f'scale {message}'):
      ensemble.Ensemble([first, second], scales)
