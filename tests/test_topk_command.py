import itertools

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


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--where', 'hlaf = 1'], 'the columns are id string'),
    (['--group_by', 'color'], "has no column 'color'"),
    (['--k', 0], 'k is 0'),
  ],
)
def test_mistakes_are_told_in_one_line(topk, arguments, message):
  assert message in topk(*arguments).error_line
