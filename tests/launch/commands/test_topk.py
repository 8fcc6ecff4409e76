import csv
import itertools

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import open_index


@pytest.fixture(name='topk')
def fixture_topk(influence, task_flags, index):
  def run(*arguments, split='test[:3]'):
    return influence(
      *('topk', *task_flags, '--index', index, '--query_split', split),
      *arguments,
    )

  return run


def results(outcome):
  assert outcome.status == 0, outcome.stderr
  return outcome.json['results']


def test_condition_and_groups(topk):
  some = results(topk('--k', 5, '--where', 'half = 1 and loss < 1', '--json'))
  assert len(some) == 3 * 2 * 5
  assert all(row['half'] == 1 and row['loss'] < 1 for row in some)
  groups = results(topk('--k', 2, '--group_by', 'half', '--json'))
  for half in (0, 1):
    mine = [row for row in groups if row['half'] == half]
    assert [row['rank'] for row in mine] == 3 * 2 * [1, 2]


def test_queries_come_in_order_with_both_ends(topk):
  rows = results(topk('--k', 4, '--json'))
  queries = list(dict.fromkeys(row['query_id'] for row in rows))
  assert [(row['query_id'], row['kind'], row['rank']) for row in rows] == [
    (query, kind, rank)
    for query in queries
    for kind in ('proponent', 'opponent')
    for rank in (1, 2, 3, 4)
  ]
  for row, after in itertools.pairwise(rows):
    if after['rank'] > 1:
      sign = 1 if row['kind'] == 'proponent' else -1
      assert sign * row['score'] >= sign * after['score']


def test_relative_damping_needs_the_trace(influence, task_flags, tmp_path):
  index = ['--index', tmp_path / 'index']
  search = [*task_flags, *index, '--query_split', 'test[:3]', '--damping']

  def make(name, *flags):
    basis = tmp_path / name
    few = ['--projection_dim', 6, '--num_iterations', 6, *flags]
    made = influence('fit-basis', *task_flags, '--out', basis, *few)
    assert made.status == 0, made.stderr
    where = ['--basis', basis, *index]
    done = influence('project', *task_flags, *where, '--json')
    shown = influence('describe', '--basis', basis).stdout
    return done.json, ' '.join(shown.split())

  _, shown = make('without', '--num_trace_probes', 0)
  assert 'mean curvature not known' in shown
  line = influence('topk', *search, '0.1x').error_line
  assert 'damping is 0.1x, but the mean curvature is not known' in line
  line = influence('self-influence', *index, '--damping', '0.1x').error_line
  assert 'of --num_trace_probes 0, or not of fit-basis; fit it again' in line
  # What it asks for needs no other projections.
  done, shown = make('with')
  assert (done['generation'], done['num_projected']) == (2, 0)
  assert 'which --damping 1x adds' in shown
  mean = influence('describe', *index, '--json').json['mean_curvature']
  relative = results(influence('topk', *search, '0.5x', '--json'))
  assert relative == results(influence('topk', *search, mean / 2, '--json'))


def test_training_examples_need_not_find_themselves(topk, index):
  ids = open_index(str(index)).rows(range(3))['id'].to_pylist()
  command = ['--k', 303, '--json']
  found = results(topk(*command, split='train[:3]'))
  assert len(found) == 3 * 2 * 303
  others = results(topk(*command, '--exclude_self', split='train[:3]'))
  assert len(others) == 3 * 2 * 302
  assert {row['query_id'] for row in others} == set(ids)
  assert all(row['id'] != row['query_id'] for row in others)


def test_self_influence_comes_along(topk, influence, index):
  found = topk('--k', 4, '--json').json['self_influence']
  alone = influence('self-influence', '--index', index, '--k', 4, '--json')
  assert found == alone.json['results']


def test_all_results_are_in_the_file(topk, tmp_path):
  shown = topk('--k', 2, split='test')
  assert '... and 17 more queries' in shown.stdout
  wrote = topk(
    '--k', 2, '--out', tmp_path / 'o.parquet', '--json', split='test'
  )
  assert wrote.json['results'] is None
  assert wrote.json['num_queries'] == 20


def test_wrong_numbers_are_told_before_work(influence):
  """With a task and an index that are not there."""
  for command in (
    ['topk', '--task', 'a:b', '--query_split', 'test'],
    ['self-influence'],
  ):
    found = influence(*command, '--index', 'absent', '--k', 0)
    assert 'k is 0, expected at least 1' in found.error_line


@pytest.mark.parametrize('group', [[], ['--group_by', 'half']])
def test_condition_that_nothing_meets(topk, tmp_path, group):
  where = ['--where', 'half = 99', *group]
  found = topk(*where, '--json')
  assert results(found) == []
  assert "no example matches --where 'half = 99'" in found.stderr
  out = tmp_path / 'o.parquet'
  assert topk(*where, '--out', out).status == 0
  table = pq.read_table(out)
  assert table.num_rows == 0
  assert {'query_id', 'rank', 'score', 'id', 'half'} <= set(table.column_names)


def test_more_examples_than_there_are(topk, influence, index):
  found = topk('--k', 10**12, '--json', split='test[:1]')
  assert len(results(found)) == 2 * 303
  assert '--k is 1,000,000,000,000, but the index has 303' in found.stderr
  alone = influence('self-influence', '--index', index, '--k', 10**9, '--json')
  assert len(results(alone)) == 303
  assert 'the index has 303 examples' in alone.stderr


def test_self_influence_of_some(influence, index):
  command = ['self-influence', '--index', index, '--k', 303, '--json']
  everything = results(influence(*command))
  some = results(influence(*command, '--where', 'half = 1'))
  expected = [row['id'] for row in everything if row['half'] == 1]
  assert [row['id'] for row in some] == expected
  none = influence(*command, '--where', 'half = 7')
  assert 'no example matches' in none.stderr
  wrong = influence(*command, '--where', "half = 'x'")
  assert '--where ' in wrong.error_line


def test_tables_as_csv(topk, influence, index, tmp_path):
  rows = results(topk('--k', 2, '--json'))
  assert topk('--k', 2, '--out', tmp_path / 'o.csv').status == 0
  with open(tmp_path / 'o.csv', newline='') as file:
    read = list(csv.DictReader(file))
  assert [row['id'] for row in read] == [row['id'] for row in rows]
  out = ['--index', index, '--k', 2, '--out', tmp_path / 's.csv']
  assert influence('self-influence', *out).status == 0
  assert len((tmp_path / 's.csv').read_text().splitlines()) == 3


def test_clipped_pairs_are_told(topk, index, monkeypatch):
  clip = ['--negative_eigenvalues', 'clip', '--json']
  assert 'largest' not in topk(*clip).stderr  # None is negative.
  values = np.array([3.0, 2, 1.5, 1, -0.5, -0.7])
  monkeypatch.setattr(
    'pipeline.index.reader.Index.eigenvalues', property(lambda self: values)
  )
  assert 'raises 2 negative eigenvalues' in topk(*clip).stderr


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--where', 'hlaf = 1'], 'the columns are id string'),
    (['--where', "half = 'x'"], '--where "half = \'x\'" cannot be used'),
    (['--where', 'id + 1 > 0'], 'cannot be used'),
    (
      ['--out', 'top.txt'],
      'expected a name that ends in .parquet, .csv or .html',
    ),
    (['--group_by', 'color'], "has no column 'color'"),
    (['--k', 0], 'k is 0'),
  ],
)
def test_mistakes_are_told_in_one_line(topk, arguments, message):
  assert message in topk(*arguments).error_line
