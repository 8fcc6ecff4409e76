"""Queries from wherever they are: files, standard input, ids; sets of them."""

import io
import json

import numpy as np
import pytest

from pipeline import TfdsCorpus, open_index
from tests.kit import corpus_files, linear_task


@pytest.fixture(name='ask')
def fixture_ask(influence, task_flags, index):
  """Runs topk over everything; other task arguments come first."""

  def run(*arguments):
    return influence(
      *('topk', *task_flags, '--index', index, '--k', 303, '--json'),
      *arguments,
    )

  return run


@pytest.fixture(scope='module', name='points')
def fixture_points(workdir):
  """x and y of the first three examples of the test split."""
  corpus = TfdsCorpus('points', 'test[:3]', str(workdir / 'data'))
  raw = [raw for _, raw in corpus.read_positions(range(3))]
  return np.stack([x['x'] for x in raw]), np.stack([x['y'] for x in raw])


def scores(outcome):
  """[num_queries, num_examples] scores of examples in the order of ids."""
  assert outcome.status == 0, outcome.stderr
  rows = [row for row in outcome.json['results'] if row['kind'] == 'proponent']
  queries = list(dict.fromkeys(row['query_id'] for row in rows))
  found = np.empty((len(queries), 303))
  ids = sorted({row['id'] for row in rows})
  for row in rows:
    place = queries.index(row['query_id']), ids.index(row['id'])
    found[place] = row['score']
  return found


@pytest.fixture(name='expected')
def fixture_expected(ask):
  return scores(ask('--query_split', 'test[:3]'))


@pytest.mark.parametrize('kind', ['jsonl', 'parquet', 'npz', 'csv', 'jsonl.gz'])
def test_a_file_of_raw_examples(ask, expected, points, tmp_path, kind):
  path = tmp_path / f'some queries.{kind}'
  corpus_files.write_file(kind, path, *points)
  found = ask('--queries', path)
  np.testing.assert_array_equal(scores(found), expected)
  names = [query['id'] for query in found.json['queries']]
  assert names == [f'some queries.{kind}__{n}' for n in range(3)]


def test_standard_input(ask, expected, points, tmp_path, monkeypatch):
  path = tmp_path / 'q.jsonl'
  corpus_files.write_file('jsonl', path, *points)
  monkeypatch.setattr('sys.stdin', io.StringIO(path.read_text() + '\n'))
  np.testing.assert_array_equal(scores(ask('--queries', '-')), expected)


def test_ids_of_any_split(ask, expected, index):
  asked = ask('--query_split', 'test[:3]').json['queries']
  [first, *_, last] = [query['id'] for query in asked]
  found = ask('--query_ids', last, first)
  # Gradients of two examples and of three are float32 sums in another order,
  # whose rounding goes with the largest terms, not with what is left of them.
  rounding = 1e-6 * abs(expected).max()
  np.testing.assert_allclose(
    scores(found), expected[[2, 0]], rtol=1e-5, atol=rounding
  )
  own = open_index(str(index)).rows([5])['id'].to_pylist()
  assert ask('--query_ids', *own, '--exclude_self').status == 0


def test_a_set_is_the_mean_or_the_sum(ask, expected):
  queries = ['--query_split', 'test[:3]', '--aggregate']
  mean = ask(*queries, 'mean')
  # Rounding of float32 scores.
  tolerance = {'rtol': 1e-4, 'atol': 1e-4}
  np.testing.assert_allclose(
    scores(mean), expected.mean(axis=0, keepdims=True), **tolerance
  )
  assert mean.json['results'][0]['query_id'] == 'mean of 3 queries'
  assert len(mean.json['queries']) == 3
  total = scores(ask(*queries, 'sum'))
  np.testing.assert_allclose(total, [expected.sum(axis=0)], **tolerance)


def test_a_contrast_is_the_difference(ask, expected, points, tmp_path):
  x, y = points
  queries = ['--query_split', 'test[:3]', '--contrast']
  corpus_files.write_file('jsonl', tmp_path / 'one.jsonl', x[:1], y[:1])
  corpus_files.write_file('jsonl', tmp_path / 'all.jsonl', x[::-1], y[::-1])
  tolerance = {'rtol': 1e-4, 'atol': 1e-4}
  found = ask(*queries, tmp_path / 'one.jsonl')
  np.testing.assert_allclose(scores(found), expected - expected[0], **tolerance)
  name = found.json['results'][0]['query_id']
  assert name.endswith('__0 - one.jsonl__0')
  each = scores(ask(*queries, tmp_path / 'all.jsonl'))
  np.testing.assert_allclose(each, expected - expected[::-1], **tolerance)
  sets = ask(*queries, tmp_path / 'one.jsonl', '--aggregate', 'mean')
  np.testing.assert_allclose(
    scores(sets), [expected.mean(axis=0) - expected[0]], **tolerance
  )


def test_what_is_asked_may_differ_from_the_loss(ask, expected, points):
  """The gradient of half the squared error is the error times that of y."""
  task = ('--task_arg', 'asked=true', '--query_split', 'test[:3]')
  found = ask(*task)
  queries = found.json['queries']
  errors = [
    query['predicted'] - y for query, y in zip(queries, points[1], strict=True)
  ]
  np.testing.assert_allclose(
    scores(found) * np.transpose([errors]), expected, rtol=1e-4, atol=1e-4
  )
  for query in queries:
    assert query['measurement'] == query['predicted']


def test_queries_are_described(ask, influence, task_flags, index):
  found = ask('--query_split', 'test[:2]').json['queries']
  for query in found:
    assert query.keys() == {'id', 'half', 'predicted', 'loss'}
    assert query['loss'] >= 0
  shown = influence(
    *('topk', *task_flags, '--index', index, '--query_split', 'test[:1]'),
    *('--k', 1),
  ).stdout
  assert 'predicted' in shown
  assert f'influence self-influence --index {index}' in shown


@pytest.mark.slow
def test_names_that_people_know(influence, task_flags, workdir, tmp_path):
  """A feature of the examples stands for their ids."""
  data = tmp_path / 'named.jsonl'
  x, y = linear_task.points(20, seed=0)
  names = [f'file {n % 19}.png' for n in range(20)]
  rows = zip(names, x.tolist(), y.tolist(), strict=True)
  data.write_text(
    ''.join(json.dumps({'file': n, 'x': a, 'y': b}) + '\n' for n, a, b in rows)
  )
  task = ['--task', 'tests.kit.linear_task:make_task']
  for argument in (f'workdir={workdir}', f'files={data}', 'example_id=file'):
    task += ['--task_arg', argument]
  basis, index = tmp_path / 'basis', tmp_path / 'index'
  fitted = influence('fit-basis', *task, '--out', basis, '--projection_dim', 6)
  assert fitted.status == 0, fitted.stderr
  where = ('--basis', basis, '--index', index)
  assert influence('project', *task, *where).status == 0
  topk = ['topk', *task, '--index', index, '--json']
  found = influence(*topk, '--query_ids', 'file 7.png')
  assert found.json['queries'][0]['id'] == 'named.jsonl__7'
  assert all(
    row['example_id'] == names[int(row['id'].rpartition('__')[2])]
    for row in found.json['results']
  )
  twice = influence(*topk, '--query_ids', 'file 0.png')
  assert "'file 0.png' is the example_id of named.jsonl__0 and of" in (
    twice.error_line
  )
  absent = influence(*topk, '--query_ids', 'file 20.png')
  assert (
    "query_ids has 'file 20.png', expected ids such as" in absent.error_line
  )


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ([], 'queries are given by nothing, expected one of --query_split'),
    (
      ['--query_split', 'test', '--queries', '-'],
      '--query_split and --queries',
    ),
    (['--queries', 'q.txt'], 'q.txt, expected a file of one of .parquet'),
    (['--queries', 'absent.jsonl'], 'absent.jsonl is missing'),
    (['--query_ids', '7'], "query_ids has '7', expected ids such as points-"),
    (['--query_ids', 'points-train__0'], 'points-train is missing'),
    (
      ['--query_ids', 'points-train.array_record-00000-of-00003__999'],
      'queries cannot be used, the first is points-train.array_record',
    ),
    (
      ['--query_split', 'test[:1]', '--aggregate', 'mean', '--exclude_self'],
      'exclude_self is for single queries',
    ),
    (['--queries', '-', '--contrast', '-'], 'queries and contrast are both -'),
  ],
)
def test_mistakes_are_told_in_one_line(ask, arguments, message):
  assert message in ask(*arguments).error_line


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'there are no queries'),
    ('{"x": [1, 2, 3, 4, 5]}', "q.jsonl__0 (preprocess: KeyError: 'y', "),
    ('{"x": [1, 2], "y": 1}', 'x has shape (2,), expected (5,)'),
    ('{"x": ', 'a line of'),
    ('[1, 2]', 'is list, expected an object'),
    ('{"x": [1e30, 0, 0, 0, 0], "y": 0}', 'its gradient is not finite'),
  ],
)
def test_bad_files_are_told_in_one_line(ask, tmp_path, text, message):
  path = tmp_path / 'q.jsonl'
  path.write_text(text)
  assert message in ask('--queries', path).error_line


def test_controls_must_be_one_or_as_many(ask, points, tmp_path):
  path = tmp_path / 'two.jsonl'
  corpus_files.write_file('jsonl', path, points[0][:2], points[1][:2])
  found = ask('--query_split', 'test[:3]', '--contrast', path)
  assert 'contrast has 2 controls, expected 1 or 3' in found.error_line


def test_bad_standard_input(ask, monkeypatch):
  monkeypatch.setattr('sys.stdin', io.StringIO('{"x": 1}\nword\n'))
  found = ask('--queries', '-')
  assert 'line 2 of standard input is no object of JSON' in found.error_line


def test_copies_are_asked_once(ask, expected, points, tmp_path):
  path = tmp_path / 'q.jsonl'
  corpus_files.write_file('jsonl', path, *points)
  first, second, third = path.read_text().split('\n')[:3]
  path.write_text('\n'.join([first, second, first, third, second]))
  found = ask('--queries', path)
  np.testing.assert_array_equal(scores(found), expected)
  assert found.json['copies'] == {
    'q.jsonl__2': 'q.jsonl__0',
    'q.jsonl__4': 'q.jsonl__1',
  }
  # Together, each counts as often as it is there.
  summed = ask('--queries', path, '--aggregate', 'sum')
  assert summed.json['copies'] == {}
  total = 2 * expected[0] + 2 * expected[1] + expected[2]
  np.testing.assert_allclose(  # A float32 sum of projections, not of scores.
    scores(summed)[0], total, rtol=1e-4, atol=1e-4 * np.abs(total).max()
  )
