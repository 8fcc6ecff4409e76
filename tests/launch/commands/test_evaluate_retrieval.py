"""Ranking quality by hand, and agreement of methods that must agree."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.evaluation import retrieval_quality


def test_figures_by_hand():
  is_relevant = np.array([False, True, False, True, False])
  scores = np.array([5.0, 4.0, 3.0, 2.0, 1.0])
  found = retrieval_quality._figures(is_relevant, scores, 2)
  assert found['reciprocal_rank'] == 1 / 2
  assert found['precision_at_2'] == 1 / 2
  assert found['recall_at_2'] == 1 / 2
  assert found['expected_precision'] == 2 / 5
  assert found['num_relevant'] == 2
  # Of 6 pairs, relevant before irrelevant: 2 + 1.
  assert found['auc'] == 3 / 6
  assert found['average_precision'] == (1 / 2 + 2 / 4) / 2


def test_columns_of_the_query_are_beside_those_of_examples():
  examples = pa.table({'id': ['a', 'b'], 'label': [1, 2]})
  columns = {'id': ['x', 'y'], 'label': [5, 6]}
  joined = retrieval_quality._joined(examples, columns, 1)
  assert joined.to_pylist() == [
    {'id': 'a', 'label': 1, 'query_id': 'y', 'query_label': 6},
    {'id': 'b', 'label': 2, 'query_id': 'y', 'query_label': 6},
  ]


@pytest.fixture(name='retrieval')
def fixture_retrieval(influence, task_flags, index, tmp_path):
  def run(*more):
    return influence(
      *('evaluate', 'retrieval', *task_flags, '--index', index),
      *('--out', tmp_path / 'r', *more),
    )

  return run


def test_an_example_finds_itself(retrieval, tmp_path):
  """By cosine nothing is nearer; by the influence large gradients win."""
  flags = ['--query_split', 'train[:20]', '--relevant', 'id = query_id']
  beside = ['--baseline', 'embedding', '--baseline', 'loss']
  done = retrieval(*flags, *beside, '--normalization', 'cosine', '--json')
  assert done.status == 0, done.stderr
  figures = {(x['score'], x['figure']): x['mean'] for x in done.json['figures']}
  assert figures['influence', 'reciprocal_rank'] == 1
  assert figures['embedding', 'reciprocal_rank'] == 1
  # One ranking for all queries.
  assert figures['loss', 'reciprocal_rank'] < 1
  for score in ('influence', 'embedding', 'loss'):
    assert figures[score, 'expected_precision'] == pytest.approx(1 / 303)
  table = pq.read_table(tmp_path / 'r' / 'retrieval.parquet')
  assert table.num_rows == 3 * 20
  plain = retrieval(*flags, '--json').json['figures']
  assert {row['figure']: row for row in plain}['reciprocal_rank']['mean'] < 1
  written = (tmp_path / 'r' / 'retrieval.json').read_text()
  assert '<svg' in (tmp_path / 'r' / 'retrieval.svg').read_text()
  assert json.loads(written)['kind'] == 'proponents'


def test_only_some_are_ranked(retrieval):
  """Among 30 examples, the expected precision is another."""
  flags = ['--query_split', 'train[:10]', '--relevant', 'id = query_id']
  few = ' or '.join(f"ends_with(id, '__{number}')" for number in range(10))
  whole, some = (
    retrieval(*flags, *more, '--json').json for more in ([], ['--where', few])
  )
  assert some['where'] == few
  assert (whole['num_queries'], some['num_queries']) == (10, 10)
  assert dict(_means(some)) != dict(_means(whole))
  # Ten records of three files each.
  assert dict(_means(some))['expected_precision'] == pytest.approx(1 / 30)


def _means(found):
  return ((row['figure'], row['mean']) for row in found['figures'])


def test_opponents_are_the_other_end(retrieval):
  flags = ['--query_split', 'test', '--relevant', 'half = query_half']
  flags += ['--json', '--kind']
  auc = [
    {row['figure']: row['mean'] for row in retrieval(*flags, x).json['figures']}
    for x in ('proponents', 'opponents')
  ]
  assert auc[0]['auc'] == pytest.approx(1 - auc[1]['auc'])


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--relevant', 'nothing = 3'], 'cannot be used'),
    (['--relevant', "id = 'nothing'"], 'tells no examples apart for any of 2'),
    (['--relevant', 'id = query_id', '--k', 0], 'k is 0, expected 1 to the'),
    (['--relevant', 'half = query_half', '--where', 'x = 1'], '--where'),
  ],
)
def test_mistakes_are_told(retrieval, flags, message):
  assert message in retrieval('--query_split', 'test[:2]', *flags).error_line


@pytest.fixture(name='agreement')
def fixture_agreement(influence, task_flags, index, tmp_path):
  """Compares an Arnoldi index of all pairs with a solved one."""
  basis, solved = tmp_path / 'exact', tmp_path / 'exact_index'
  made = influence(
    *('query-basis', *task_flags, '--out', basis, '--method', 'exact'),
    *('--query_split', 'test[:8]'),
  )
  assert made.status == 0, made.stderr
  where = ['--basis', basis, '--index', solved]
  assert influence('project', *task_flags, *where).status == 0

  def run(*more):
    return influence(
      *('evaluate', 'agreement', *task_flags, '--index', index),
      *('--reference', solved, '--query_split', 'test[:8]', *more),
    )

  return run


@pytest.mark.slow
def test_all_pairs_are_the_exact_inverse(agreement, tmp_path):
  more = ['--baseline', 'embedding', '--out', tmp_path / 'a']
  done = agreement('--json', *more)
  assert done.status == 0, done.stderr
  row, embedding = done.json['agreement']
  assert embedding['method'] == 'embedding'
  assert embedding['pearson'] < row['pearson']
  assert row['pearson'] == pytest.approx(1, abs=1e-5)  # float32 projections.
  assert row['spearman'] > 0.999
  assert row['top_10_in_common'] > 0.95
  [fewer] = agreement('--json', '--projection_dim', 2).json['agreement']
  assert fewer['pearson'] < row['pearson']
  table = pq.read_table(tmp_path / 'a' / 'agreement.parquet')
  assert '<svg' in (tmp_path / 'a' / 'agreement.svg').read_text()
  assert table['query_id'].to_pylist()[0].endswith('__0')


@pytest.mark.slow
def test_random_pairs_are_chosen_by_seed(agreement):
  flags = ['--json', '--projection_dim', 3, '--pair_choice', 'random']
  values = [
    agreement(*flags, '--pair_seed', seed).json['agreement'][0]['pearson']
    for seed in (0, 0, 1, 2, 3)
  ]
  assert values[0] == values[1]
  assert len(set(values)) > 2


def test_k_is_checked(agreement):
  assert 'k is 304, expected 1 to the 303' in agreement('--k', 304).error_line
