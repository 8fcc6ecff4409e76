"""Several indexes as one from the command line, against each alone."""

import io
import shutil

import numpy as np
import pytest

from influence_core import errors
from launch import cli
from pipeline import QuerySession, ScoreOptions, SearchRequest, save_arrays
from pipeline.tasks import checkpoints
from tests.kit import corpus_files, linear_task, synthetic_index

OTHER = 'tests.kit.linear_task:make_task'


@pytest.fixture(name='second', scope='module')
def fixture_second(workdir, tmp_path_factory):
  """An index of another model, on other shards and fewer pairs, in int8."""
  path = tmp_path_factory.mktemp('second')
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  params['weights'] = params['weights'] * np.float32(1.3)
  save_arrays(str(path / 'checkpoint'), params)
  task = ['--task', OTHER, '--task_arg', f'workdir={path}']
  task += ['--task_arg', f'data_dir={workdir}/data']
  basis, index = str(path / 'basis'), path / 'index'
  fit = ['fit-basis', *task, '--out', basis, '--projection_dim', '4']
  assert cli.main([*fit, '--num_iterations', '6', '--json']) == 0
  project = ['project', *task, '--basis', basis, '--index', str(index)]
  project += ['--range_size', '25', '--vector_dtype', 'int8', '--json']
  assert cli.main(project) == 0
  return index


def by_id(rows, *, kind='proponent'):
  """Scores by query and example."""
  return {
    (row.get('query_id'), row['id']): row['score']
    for row in rows
    if row.get('kind', kind) == kind
  }


@pytest.fixture(name='topk')
def fixture_topk(influence):
  def run(*indexes, flags=('--query_split', 'test[:3]')):
    done = influence(
      *('topk', '--index', *indexes, '--k', 303, *flags, '--json')
    )
    assert done.status == 0, done.stderr
    return done.json

  return run


def test_scores_are_added(topk, index, second):
  """Tasks, models and bases are those that the indexes were made with."""
  one, other = (by_id(topk(path)['results']) for path in (index, second))
  for scales, flags in (((0.5, 0.5), ()), ((3, 0.25), ('--scale', 3, 0.25))):
    flags = ('--query_split', 'test[:3]', *flags)
    found = topk(index, '--index', second, flags=flags)
    assert [member['scale'] for member in found['members']] == list(scales)
    assert found['index'].startswith('/')
    assert '{' in found['index']
    scores = by_id(found['results'])
    assert len(scores) == 3 * 303
    # Sums in float32 of terms that cancel, as large as the largest score.
    tolerance = 1e-6 * max(map(abs, scores.values()))
    for key, score in scores.items():
      expected = scales[0] * one[key] + scales[1] * other[key]
      assert score == pytest.approx(expected, rel=1e-5, abs=tolerance)
    ranked = [row['score'] for row in found['results'][:303]]
    assert ranked == sorted(ranked, reverse=True)


def test_certified(influence, index, second):
  flags = ['--query_split', 'test[:2]', '--k', 4, '--certify', '--json']
  sure = influence('topk', '--index', index, second, *flags).json['results']
  session = QuerySession([str(index), str(second)])
  queries = session.project('test[:2]')
  exact = session._exact_vectors()(np.arange(303))
  weighted = session.index.weight_queries(queries.projections, ScoreOptions())
  scores = weighted.astype(np.float64) @ exact.T.astype(np.float64)
  assert all(row['certified'] for row in sure)
  ids = session.index.rows(columns=['id'])['id'].to_pylist()
  for number, sign in ((0, -1), (1, 1)):
    best = np.argsort(sign * scores[0])[:4]
    mine = sure[4 * number : 4 * number + 4]
    assert [row['id'] for row in mine] == [ids[i] for i in best]
    # Projected again in batches of other sizes.
    np.testing.assert_allclose(
      [row['score'] for row in mine], scores[0][best], rtol=1e-4
    )


def test_what_the_answer_hides_is_told(influence, tmp_path):
  for number, rejected in ((0, (3,)), (1, (3, 4, 5))):
    synthetic_index.make_index(
      tmp_path / str(number),
      'float32',
      rejected=rejected,
      more_fingerprints={'preprocessing': str(number)},
    )
  paths = [tmp_path / '0', tmp_path / '1']
  found = influence('self-influence', '--k', 1, '--index', *paths)
  assert found.status == 0, found.stderr
  assert '2 examples that not all of the indexes have are left' in found.stderr
  assert 'different preprocessing' in found.stderr
  assert (
    f'{tmp_path}/{{0,1}}'
    in influence('self-influence', '--index', *paths, '--json').json['index']
  )


def test_self_influence(influence, index, second):
  command = ['self-influence', '--k', 303, '--json', '--index']
  one, other, both = (
    by_id(influence(*command, *paths).json['results'])
    for paths in ([index], [second], [index, second])
  )
  for key, score in both.items():
    assert score == pytest.approx((one[key] + other[key]) / 2, rel=1e-5)


def test_queries_put_together(topk, index, second, tmp_path, monkeypatch):
  """Sums, differences and standard input, which is read once for all."""
  x, y = linear_task.points(linear_task.NUM_TEST, seed=1)
  path = tmp_path / 'q.jsonl'
  corpus_files.write_file('jsonl', path, x[:3], y[:3])
  expected = by_id(topk(index, second)['results'])
  flags = ['--queries', '-', '--aggregate', 'sum', '--contrast', path]
  monkeypatch.setattr('sys.stdin', io.StringIO(path.read_text()))
  nothing = topk(index, second, flags=flags)['results']
  # The same subtracted from itself, but for float32 in batches.
  assert max(abs(row['score']) for row in nothing) < 1e-4
  monkeypatch.setattr('sys.stdin', io.StringIO(path.read_text()))
  total = by_id(topk(index, second, flags=flags[:4])['results'])
  queries = {query for query, _ in expected}
  for (_, example), score in total.items():
    parts = [expected[query, example] for query in queries]
    assert score == pytest.approx(sum(parts), rel=1e-3, abs=1e-3)


@pytest.mark.slow
def test_evaluations(influence, index, second, tmp_path):
  both = ['--index', index, second]
  bad = influence('evaluate', 'detection', *both, '--bad', 'half = 1', '--json')
  found = {row['score']: row['auc'] for row in bad.json['scores']}
  session = QuerySession([str(index), str(second)])
  own = session.index.self_influence()
  half = session.index.rows(columns=['half'])['half'].to_numpy() == 1
  above = (own[half][:, None] > own[~half]).mean()
  assert found['self_influence'] == pytest.approx(above, rel=1e-6)
  own = ['--query_split', 'train[:5]', '--relevant', 'id = query_id', '--json']
  rank = influence(
    *('evaluate', 'retrieval', *both, *own, '--normalization', 'cosine')
  ).json
  assert rank['index'] == session.index.path
  assert [row['mean'] for row in rank['figures'] if 'auc' in row['figure']] == [
    1
  ]
  lds = influence(
    *('evaluate', 'lds', '--index', index, '--index', index, index, *both),
    *('--query_split', 'test[:3]', '--num_subsets', 5, '--out', tmp_path),
    '--json',
  )
  assert lds.status == 0, lds.stderr
  alone, twice, together = lds.json['scores']
  assert alone['lds'] == pytest.approx(twice['lds'], abs=1e-9)
  assert alone['method'] == str(index)
  assert together['method'] == session.index.path
  agreement = influence(
    *('evaluate', 'agreement', '--index', index, *both, '--reference', index),
    *('--query_split', 'test[:3]', '--json'),
  ).json['agreement']
  assert agreement[0]['pearson'] == pytest.approx(1)
  assert 0 < agreement[1]['pearson'] < 1 - 1e-6
  retrained = influence(
    *('evaluate', 'counterfactual', *both, '--query_split', 'test[:1]'),
    *('--k', 5, '--out', tmp_path, '--json'),
  )
  assert retrained.status == 0, retrained.stderr


def test_what_does_not_belong_together(
  influence, index, second, task_flags, basis, tmp_path
):
  other = ['--task_arg', 'split=train[:200]']
  command = ['project', *task_flags, *other, '--basis', basis]
  assert influence(*command, '--index', tmp_path / 'i').status == 0
  wrong = influence('self-influence', '--index', index, tmp_path / 'i')
  assert 'is of another corpus than that at' in wrong.error_line
  assert 'not records 0 to 100' in wrong.error_line
  pair = ['--index', index, second, '--query_split', 'test']
  for flags, message in (
    (
      ['--scale', 1],
      'scale has 1 numbers, expected one for each of 2',
    ),
    (['--basis', basis], '1 bases are given, expected one for each of 2'),
    (['--task_arg', 'workdir=W'], 'task_arg workdir is given without --task'),
    # Of both indexes then.
    (task_flags, f'the index at {second} was made with other parameters'),
  ):
    assert message in influence('topk', *pair, *flags).error_line


def test_the_task_of_an_index(influence, second, workdir, tmp_path):
  """What it was made with, wherever that is now."""
  shutil.copytree(second, tmp_path / 'index')
  asked = ['topk', '--index', tmp_path / 'index', '--query_split', 'test[:1]']
  assert influence(*asked).status == 0
  place = second.parent / 'checkpoint'
  place.rename(tmp_path / 'checkpoint')
  try:
    lost = influence(*asked).error_line
    assert f'the index at {tmp_path / "index"} was made with {OTHER}' in lost
    assert f'workdir={second.parent}' in lost
    moved = ['--task', OTHER, '--task_arg', f'workdir={tmp_path}']
    assert influence(*asked, *moved).status == 0
  finally:
    (tmp_path / 'checkpoint').rename(place)
  synthetic_index.make_index(tmp_path / 's', 'float32')
  with pytest.raises(errors.InputError, match='does not say which task'):
    QuerySession(str(tmp_path / 's'))


def test_in_python(index, second):
  session = QuerySession([str(index), str(second)], scales=[1, 2])
  queries = session.project('test[:4]')
  assert queries.projections.shape == (4, 10)
  [found] = session.search(queries, SearchRequest(k=5)).values()
  again = session.index.topk(queries.projections, 5)
  np.testing.assert_array_equal(
    again.opponents.positions, found.opponents.positions
  )
  assert session.index.projections().shape == (303, 10)
  assert '2 indexes: 303 examples, 10 projections' in repr(session.index)
