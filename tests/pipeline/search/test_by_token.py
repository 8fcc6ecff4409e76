"""The share of each token against projections of that token alone."""

import json

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.search import by_token, retrieve, self_influence
from pipeline.search.query_session import QuerySession
from pipeline.search.request import SearchRequest
from pipeline.search.selection import EVERYTHING, Selection
from pipeline.tasks.query_choice import QueryChoice
from pipeline.tasks.reference import TaskReference
from tests.kit import token_task

K = 3
NUM_QUERIES = 4
DEFAULTS = ScoreOptions()
METHODS = {
  'kronecker': ['--coordinates_per_layer', '8'],
  'arnoldi': ['--projection_dim', '6', '--num_iterations', '12'],
}


@pytest.fixture(name='corpus', scope='module')
def fixture_corpus(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokens') / 'texts.jsonl'
  token_task.write(path)
  return path


@pytest.fixture(name='make_index', scope='module')
def fixture_make_index(corpus):
  made = {}

  def make(method, seed=1):
    if (method, seed) not in made:
      place = corpus.parent / f'{method}_{seed}'
      fit = ['--method', method, *METHODS[method]]
      index = token_task.make_index(place, texts=corpus, seed=seed, fit=fit)
      made[method, seed] = str(index)
    return made[method, seed]

  return make


def rows_of(corpus):
  return [json.loads(line) for line in corpus.read_text().splitlines()]


def single_tokens(row):
  """The same text once for each token, which alone counts."""
  count = np.array(row['counts'])
  return [
    {**row, 'counts': (count * (np.arange(len(count)) == t)).tolist()}
    for t in range(len(count))
  ]


def search(
  session,
  queries,
  options=DEFAULTS,
  selection=EVERYTHING,
  progress=lambda *step: None,
):
  request = SearchRequest(k=K, options=options, selection=selection)
  found = session.search(queries, request)
  return session.by_token(queries, found, options, progress=progress)


def every_end(found):
  [result] = found.values()
  return result.proponents, result.opponents


@pytest.mark.parametrize('method', METHODS)
def test_shares_are_the_influence_of_single_tokens(method, make_index, corpus):
  session = QuerySession(make_index(method))
  rows = rows_of(corpus)
  queries = session.project(rows[:NUM_QUERIES])
  options = ScoreOptions(damping='0.1x')
  found = search(session, queries, options)
  weights = session.index.column_weights(options)

  def scores(one, other):
    """[len(one), len(other)] by projections."""
    left, right = (session.project(x).projections for x in (one, other))
    return left * weights @ right.T

  for top in every_end(found):
    for query, rank in np.ndindex(top.positions.shape):
      own = top.tokens[query, rank]
      answered = top.query_tokens[query, rank]
      row, asked = rows[top.positions[query, rank]], rows[query]
      assert own.texts == [f'w{word}' for word in row['words']]
      assert answered.texts == [f'w{word}' for word in asked['words']]
      # float32 sums in other orders.
      close = {'rtol': 1e-4, 'atol': 1e-5 * np.abs(top.scores).max()}
      expected = scores(single_tokens(row), [asked])[:, 0]
      np.testing.assert_allclose(own.scores, expected, **close)
      expected = scores(single_tokens(asked), [row])[:, 0]
      np.testing.assert_allclose(answered.scores, expected, **close)
      assert (own.scores[np.array(row['counts']) == 0] == 0).all()


@pytest.mark.parametrize('normalization', ['gradient_norm', 'cosine'])
def test_they_add_up_in_ensembles(normalization, make_index):
  members = [make_index('kronecker'), make_index('kronecker', seed=2)]
  session = QuerySession(members, scales=[1.0, 0.5])
  queries = session.project('train[:3]')
  told = []
  found = search(
    session,
    queries,
    ScoreOptions(normalization=normalization),
    progress=lambda *step: told.append(step),
  )
  for top in every_end(found):
    for tokens in (top.tokens, top.query_tokens):
      sums = np.vectorize(lambda x: x.scores.sum())(tokens)
      np.testing.assert_allclose(sums, top.scores, rtol=1e-4, atol=1e-5)
  assert told[-1][0] == told[-1][1]


def test_sets_of_queries_have_no_tokens(make_index):
  session = QuerySession(make_index('kronecker'))
  queries = session.project(
    QueryChoice(query_split='train[:3]', aggregate='mean')
  )
  found = search(session, queries)
  for top in every_end(found):
    assert top.query_tokens is None
    sums = [tokens.scores.sum() for tokens in top.tokens[0]]
    np.testing.assert_allclose(sums, top.scores[0], rtol=1e-4, atol=1e-5)


def test_of_nothing_there_are_none(make_index):
  session = QuerySession(make_index('kronecker'))
  queries = session.project('train[:1]')
  found = search(session, queries, selection=Selection(where="text = ''"))
  for top in every_end(found):
    assert (top.positions == retrieve.NO_POSITION).all()


@pytest.mark.parametrize(
  ('fault', 'told'),
  [
    ('none', 'task tokens has no tokens; give it token_losses and'),
    ('other_sum', r'the sum of token_losses of .* is .*; they must be'),
    ('many_texts', 'expected one text for each loss'),
  ],
)
def test_wrong_tokens_are_told(fault, told, make_index, corpus):
  arguments = {'path': str(corpus), 'fault': fault}
  task = TaskReference('tests.kit.token_task:make_task', arguments)
  session = QuerySession(make_index('kronecker'), task)
  queries = session.project(rows_of(corpus)[:1])
  with pytest.raises(errors.InputError, match=told):
    search(session, queries)


@pytest.mark.parametrize('normalization', ['none', 'gradient_norm'])
def test_they_add_up_to_self_influence(normalization, make_index):
  session = QuerySession([make_index('kronecker'), make_index('arnoldi')])
  options = ScoreOptions(normalization=normalization)
  top = self_influence.top(session.index, k=5, options=options)
  shares = by_token.TokenShares(session.index, session.members, options)
  [positions] = top.positions
  found = shares.of_self_influence(positions)
  totals = [found[x].scores.sum() for x in positions.tolist()]
  # float32 sums in another order.
  np.testing.assert_allclose(totals, top.scores[0], rtol=1e-4)
