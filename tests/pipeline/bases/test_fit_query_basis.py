"""Solved queries against closed forms, and served like any other basis."""

import typing

import numpy as np
import pytest

from influence_core import choices, damping as damping_lib
from influence_core.scores.options import ScoreOptions
from pipeline import open_index
from pipeline.bases import stored_basis
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.index import reader as index_reader
from pipeline.search import row_blocks
from pipeline.tasks import checkpoints
from tests.kit import linear_task, marks

COUNT = 8


@pytest.fixture(name='scores')
def fixture_scores(influence, task_flags, tmp_path):
  """Influence of all training examples on the queries, by a method."""

  def run(method, *flags):
    basis, index = tmp_path / f'b_{method}', tmp_path / f'i_{method}'
    made = influence(
      *('query-basis', *task_flags, '--out', basis, '--method', method),
      *('--query_split', f'test[:{COUNT}]', *flags),
    )
    assert made.status == 0, made.stderr
    where = ('--basis', basis, '--index', index)
    assert influence('project', *task_flags, *where).status == 0
    return row_blocks.all_scores(
      index_reader.Index(str(index)),
      np.eye(COUNT, dtype=np.float32),
      ScoreOptions(),
    )[0]

  return run


@pytest.fixture(name='gradients')
def fixture_gradients(workdir):
  """Closed-form gradients of training examples and queries."""
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  train = linear_task.closed_form_gradients(linear_task.NUM_TRAIN, 0, params)
  queries = linear_task.closed_form_gradients(linear_task.NUM_TEST, 1, params)
  return train, queries[:COUNT]


def relative_error(found, expected):
  return np.abs(found - expected).max() / np.abs(expected).max()


@pytest.mark.slow
@pytest.mark.parametrize('curvature', ['hessian', 'gauss_newton'])
@pytest.mark.parametrize('method', ['cg', 'exact'])
def test_equals_the_inverse_hessian(scores, gradients, method, curvature):
  """The loss is quadratic, so that both matrices are the same."""
  flags = ['--curvature', curvature, '--tolerance', 1e-5]
  found = scores(method, *flags)
  train, queries = gradients
  hessian, _, _ = linear_task.closed_form()
  expected = queries @ np.linalg.solve(hessian, train.T)
  # float32 products with a matrix of condition 1e2.
  assert relative_error(found, expected) < 1e-4


@pytest.mark.slow
def test_damping_is_added(scores, gradients):
  found = scores('cg', '--damping', 2, '--tolerance', 1e-5)
  train, queries = gradients
  hessian, _, _ = linear_task.closed_form()
  damped = hessian + 2 * np.eye(len(hessian))
  expected = queries @ np.linalg.solve(damped, train.T)
  assert relative_error(found, expected) < 1e-4


@pytest.mark.parametrize(
  'method',
  marks.slow_where(['exact', 'cg', 'lissa'], ['cg', 'lissa']),
)
def test_relative_damping_is_of_the_mean_curvature(
  scores, gradients, tmp_path, method
):
  whole = ['--microbatch_size', linear_task.NUM_TRAIN, '--num_products', 100]
  found = scores(method, '--damping', '5x', '--tolerance', 1e-5, *whole)
  record = stored_basis.load_record(str(tmp_path / f'b_{method}'))
  hessian, _, _ = linear_task.closed_form()
  trace = record.report.trace
  size = len(hessian)
  if method == 'exact':
    assert trace.trace == pytest.approx(np.trace(hessian), rel=1e-5)
    assert (trace.num_probes, record.report.num_products) == (0, size)
  else:
    # Four standard errors are left with a probability of 6e-5.
    assert abs(trace.trace - np.trace(hessian)) < 4 * trace.standard_error
    assert record.report.num_products > trace.num_probes > 0
  train, queries = gradients
  damped = hessian + 5 * trace.mean_curvature * np.eye(size)
  expected = queries @ np.linalg.solve(damped, train.T)
  assert relative_error(found, expected) < 1e-4


@pytest.mark.slow
def test_lissa_comes_near(scores, gradients):
  """The whole sample as one microbatch: no noise, only the series' end."""
  flags = ['--microbatch_size', linear_task.NUM_TRAIN, '--num_products', 2000]
  found = scores('lissa', *flags)
  train, queries = gradients
  hessian, _, _ = linear_task.closed_form()
  expected = queries @ np.linalg.solve(hessian, train.T)
  # (1 - smallest / (4 * largest eigenvalue))^2000 = 1e-4 is left.
  assert relative_error(found, expected) < 1e-3


@pytest.mark.slow
def test_lissa_with_random_microbatches_comes_near(scores, gradients):
  flags = ['--microbatch_size', 32, '--num_products', 2000, '--damping', 1]
  found = scores('lissa', *flags)
  train, queries = gradients
  hessian, _, _ = linear_task.closed_form()
  damped = hessian + np.eye(len(hessian))
  expected = queries @ np.linalg.solve(damped, train.T)
  # What a step changes is a random 1/scale of the whole.
  assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_gradient_gives_inner_products(scores, gradients):
  train, queries = gradients
  assert relative_error(scores('gradient'), queries @ train.T) < 1e-5


def test_damping_that_is_not_asked_for():
  for method in typing.get_args(choices.QueryMethod):
    used = QueryBasisConfig('test', method, damping=None).used_damping
    expected = '0.1x' if method == 'ekfac' else 0.0
    assert used == damping_lib.parse(expected)
  given = QueryBasisConfig('test', 'ekfac', damping=2.0)
  assert given.used_damping == damping_lib.Damping(2.0)


@pytest.mark.slow
def test_ekfac_is_the_inverse_of_its_blocks(scores, gradients):
  """Two parameters with a row or a column each: their blocks are exact."""
  found = scores('ekfac', '--curvature', 'empirical_fisher', '--damping', 0.5)
  train, queries = gradients
  fisher = train.T @ train / len(train)
  fisher[0, 1:] = fisher[1:, 0] = 0  # The bias is a parameter of its own.
  fisher += (0.5 + linear_task.L2_WEIGHT) * np.eye(len(fisher))
  # Weights are [5, 1]: inputs turn them to the eigenvectors of E[x x'], in
  # which only the diagonal of the curvature is kept.
  x, _ = linear_task.points(linear_task.NUM_TRAIN, seed=0)
  _, vectors = np.linalg.eigh(x.T.astype(float) @ x / len(x))
  turned = vectors.T @ fisher[1:, 1:] @ vectors
  fisher[1:, 1:] = vectors @ np.diag(np.diag(turned)) @ vectors.T
  expected = queries @ np.linalg.solve(fisher, train.T)
  assert relative_error(found, expected) < 1e-4


@pytest.mark.slow
def test_topk_finds_the_queries_of_the_basis(
  scores, influence, task_flags, tmp_path
):
  values = scores('cg')
  search = ['topk', *task_flags, '--index', tmp_path / 'i_cg', '--k', 1]
  found = influence(*search, '--query_split', f'test[:{COUNT}]', '--json').json
  assert found['self_influence'] == []
  first = [row for row in found['results'] if row['kind'] == 'proponent']
  ids = open_index(str(tmp_path / 'i_cg')).rows(columns=['id'])['id']
  assert [row['id'] for row in first] == [
    ids[best].as_py() for best in values.argmax(axis=1)
  ]
  line = influence(*search, '--query_split', f'test[:{COUNT + 1}]').error_line
  assert 'is not one of the 8 that the basis was made of' in line


def test_self_influence_is_refused(scores, influence, tmp_path):
  scores('gradient')
  index = ['--index', tmp_path / 'i_gradient']
  line = influence('self-influence', *index).error_line
  assert 'knows its influence on 8 queries alone; self-influence needs' in line
  line = influence('evaluate', 'detection', *index, '--bad', 'half = 1')
  assert 'self-influence needs' in line.error_line


@pytest.mark.slow
def test_description_says_what_it_is(scores, influence, tmp_path):
  scores('cg')
  shown = influence('describe', '--basis', tmp_path / 'b_cg').stdout
  assert 'by cg with gauss_newton of 303 examples' in shown
  assert 'worst residual' in shown


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--num_products', 0], 'num_products is 0, expected at least 1'),
    (['--damping', -1], 'damping is -1.0, expected a finite number of'),
    (['--damping=-1x'], "damping is '-1x', expected a finite number >= 0"),
    (['--scale', 0], 'scale is 0.0, expected a finite number > 0'),
    (['--method', 'lissa', '--scale', 0.01], 'LiSSA diverges with scale 0.01'),
    (
      ['--method', 'ekfac', '--curvature', 'hessian'],
      "method 'ekfac' has no hessian",
    ),
    (['--query_split', 'nothing'], "no split 'nothing'"),
  ],
)
def test_mistakes_are_told(influence, task_flags, tmp_path, flags, message):
  command = ['query-basis', *task_flags, '--query_split', 'test[:2]']
  line = influence(*command, '--out', tmp_path / 'b', *flags).error_line
  assert message in line
