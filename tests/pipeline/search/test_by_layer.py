"""Layers at query time: some of them alone, and the share of each."""

import json
import re

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.search import (
  certify,
  retrieve,
  selection as selection_lib,
  self_influence,
)
from tests.kit import synthetic_index
from tests.kit.synthetic_index import LAYERS, NORMS, NUM_ROWS, QUERIES, VECTORS

# Of LAYERS.
PARTS = {'Conv_0': np.s_[:5], 'Dense_0': np.s_[5:9], 'Dense_1': np.s_[9:]}
EIGENVALUES = np.array(synthetic_index.EIGENVALUES)
MEANS = np.repeat([2.0, 0.5, 0.1], [5, 4, 3])
NORMALIZATIONS = ['none', 'gradient_norm', 'cosine']


@pytest.fixture(name='index', scope='module')
def fixture_index(tmp_path_factory):
  path = tmp_path_factory.mktemp('float32')
  return synthetic_index.make_index(path, 'float32', LAYERS)


@pytest.fixture(name='low', scope='module', params=['bfloat16', 'int8'])
def fixture_low(request, tmp_path_factory):
  path = tmp_path_factory.mktemp(request.param)
  return synthetic_index.make_index(path, request.param, LAYERS)


def brute_force(columns, normalization, damping=0.1 * MEANS):
  """[num_queries, num_rows] scores by some columns alone."""
  weights = 1 / (EIGENVALUES + damping)[columns]
  queries, rows = (x[:, columns].astype(np.float64) for x in (QUERIES, VECTORS))
  scores = queries * weights @ rows.T
  if normalization == 'gradient_norm':
    return scores / np.sqrt(NORMS)
  if normalization == 'cosine':
    own = [np.sqrt(np.square(x) @ weights) for x in (queries, rows)]
    return scores / own[0][:, None] / own[1]
  return scores


def all_scores(top):
  """[num_queries, num_rows] by position, of what has them all."""
  order = np.argsort(top.positions, axis=1)
  return np.take_along_axis(top.scores, order, axis=1)


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
@pytest.mark.parametrize(
  ('pattern', 'columns'), [('Dense', np.s_[5:]), ('v_0$|e_1', np.r_[:5, 9:12])]
)
def test_some_layers_alone(index, normalization, pattern, columns):
  options = ScoreOptions(layers=pattern, normalization=normalization)
  found = index.topk(QUERIES, NUM_ROWS, options=options)
  expected = brute_force(columns, normalization)
  for top in (found.proponents, found.opponents):
    np.testing.assert_allclose(  # Stored and weighted in float32.
      all_scores(top), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max()
    )
  best = np.argsort(-expected, axis=1)[:, :20]
  np.testing.assert_array_equal(found.proponents.positions[:, :20], best)


def test_pairs_are_counted_among_the_layers(index):
  """The leading ones by eigenvalue, wherever they stand."""
  weights = index.column_weights(
    ScoreOptions(layers='Dense', projection_dim=2, damping=0)
  )
  assert np.flatnonzero(weights).tolist() == [5, 6]
  with pytest.raises(errors.InputError, match='expected 1 to 7, the pairs'):
    index.column_weights(ScoreOptions(layers='Dense', projection_dim=8))


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_shares_add_up_to_scores(index, normalization):
  options = ScoreOptions(normalization=normalization)
  found = index.topk(QUERIES, 30, options=options, by_layer=True)
  for top in (found.proponents, found.opponents, found.self_influence):
    assert list(top.by_layer) == list(PARTS)
    # Self-influence is a sum in float32, scores are rounded to it.
    np.testing.assert_allclose(
      sum(top.by_layer.values()), top.scores, rtol=1e-5
    )
  positions = found.proponents.positions
  for name, columns in PARTS.items():
    share = found.proponents.by_layer[name]
    if normalization == 'cosine':  # The whole is in its denominators.
      continue
    alone = brute_force(columns, normalization)
    expected = np.take_along_axis(alone, positions, axis=1)
    np.testing.assert_allclose(share, expected, rtol=1e-5, atol=1e-5)


def test_shares_of_self_influence(index, monkeypatch):
  monkeypatch.setattr('pipeline.search.by_layer._ROWS_TOGETHER', 7)
  options = ScoreOptions(normalization='gradient_norm')
  top = self_influence.top(index, k=40, options=options, by_layer=True)
  for name in PARTS:
    some = ScoreOptions(layers=re.escape(name), normalization='gradient_norm')
    alone = index.self_influence(options=some)
    np.testing.assert_allclose(
      top.by_layer[name], alone[top.positions], rtol=1e-5
    )


def test_shares_follow_their_examples(index, monkeypatch):
  """Through groups, and where the query itself is taken out."""
  monkeypatch.setattr('pipeline.search.by_layer._ROWS_TOGETHER', 11)
  selection = selection_lib.Selection(
    group_by='label', excluded_ids=tuple(f'f__{i}' for i in range(6))
  )
  found = retrieve.search(
    index,
    VECTORS[:6],
    k=5,
    options=ScoreOptions(damping=0),
    selection=selection,
    by_layer=True,
  )
  assert sorted(found) == [0, 1]
  for result in found.values():
    for top in (result.proponents, result.opponents):
      used = top.positions != retrieve.NO_POSITION
      np.testing.assert_allclose(
        sum(top.by_layer.values())[used], top.scores[used], rtol=1e-6
      )


@pytest.mark.parametrize('normalization', NORMALIZATIONS)
def test_certified_of_some_layers(index, low, normalization):
  options = ScoreOptions(layers='Dense', normalization=normalization)
  arguments = {'k': 10, 'options': options, 'by_layer': True}
  found = certify.search_certified(
    low, QUERIES, exact_vectors=lambda x: VECTORS[x], **arguments
  )[None]
  expected = retrieve.search(index, QUERIES, **arguments)[None]
  for name in ('proponents', 'opponents'):
    one, other = getattr(found, name), getattr(expected, name)
    assert one.certified.all()
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.scores, other.scores)
    assert list(one.by_layer) == ['Dense_0', 'Dense_1']
    for layer, shares in one.by_layer.items():
      np.testing.assert_array_equal(shares, other.by_layer[layer])


def test_bounds_hold_for_some_layers(index, low):
  options = ScoreOptions(layers='Conv')
  found = low.topk(QUERIES, NUM_ROWS, options=options)
  truth = all_scores(index.topk(QUERIES, NUM_ROWS, options=options).proponents)
  for top in (found.proponents, found.opponents):
    expected = np.take_along_axis(truth, top.positions, axis=1)
    difference = np.abs(top.scores - expected)
    assert (difference <= top.error_bounds + 1e-5 * np.abs(expected)).all()


def test_groups_of_nothing(index, low):
  selection = selection_lib.Selection(where='label = 9', group_by='label')
  arguments = {'k': 2, 'options': ScoreOptions(), 'selection': selection}
  assert retrieve.search(index, QUERIES, by_layer=True, **arguments) == {}
  found = certify.search_certified(
    low, QUERIES, exact_vectors=lambda x: VECTORS[x], **arguments
  )
  assert found == {}


def test_what_there_is_is_named(index, tmp_path):
  with pytest.raises(
    errors.InputError, match=r'none of .*: Conv_0, Dense_0, Dense_1'
  ):
    index.topk(QUERIES, 1, options=ScoreOptions(layers='conv'))
  with pytest.raises(errors.InputError, match=r"'\(', which is not a regular"):
    ScoreOptions(layers='(')
  plain = synthetic_index.make_index(tmp_path, 'float32')
  message = 'knows no layers, its 12 columns are of all parameters; {} needs'
  for name, asked in (
    ("layers 'Dense'", {'options': ScoreOptions(layers='Dense')}),
    ('by_layer', {'by_layer': True}),
  ):
    with pytest.raises(errors.InputError, match=message.format(name)):
      plain.topk(QUERIES, 1, **asked)
  assert plain.rows().schema.metadata is None


def test_rows_say_which_columns_are_whose(index):
  for table in (index.rows(), index.rows([3, 1], ['id'])):
    layers = json.loads(table.schema.metadata[b'layers'])
    assert [(x['name'], x['start'], x['count']) for x in layers] == [
      ('Conv_0', 0, 5),
      ('Dense_0', 5, 4),
      ('Dense_1', 9, 3),
    ]
    assert layers[1]['mean_curvature'] == 0.5
