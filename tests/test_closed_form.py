"""The whole way, from prepared corpus to scores, against ridge regression."""

import numpy as np
import pytest

from pipeline.index import reader as index_reader
from pipeline.tasks import checkpoints
from tests.kit import linear_task


def exact_influence(workdir, damping=0.0):
  """[20 queries, NUM_TRAIN] influence by the inverse Hessian, float64."""
  hessian, _, _ = linear_task.closed_form()
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  train = linear_task.closed_form_gradients(linear_task.NUM_TRAIN, 0, params)
  test = linear_task.closed_form_gradients(20, 1, params)
  damped = hessian + damping * np.eye(len(hessian))
  return test @ np.linalg.solve(damped, train.T)


@pytest.mark.parametrize('damping', ['0', '0.5', '0.2x'])
def test_topk_gives_the_closed_form_influence(
  influence, workdir, task_flags, index, damping
):
  found = influence(
    'topk',
    *task_flags,
    *('--index', index, '--query_split', 'test', '--k', 303),
    *('--damping', damping, '--json'),
  )
  added = float(damping.removesuffix('x'))
  if damping.endswith('x'):  # All pairs are kept: nothing is estimated.
    hessian, _, _ = linear_task.closed_form()
    added *= np.trace(hessian) / len(hessian)
  expected = exact_influence(workdir, added)
  order = positions_by_id(index)
  scores = np.full_like(expected, np.nan)
  queries = {}
  for row in found.json['results']:
    query = queries.setdefault(row['query_id'], len(queries))
    if row['kind'] == 'proponent':
      scores[query, order[row['id']]] = row['score']
  # All six eigenpairs are kept, so only float32 rounding remains.
  np.testing.assert_allclose(
    scores, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max()
  )


def test_self_influence_is_the_diagonal(influence, workdir, index):
  found = influence('self-influence', '--index', index, '--k', 10, '--json')
  hessian, _, _ = linear_task.closed_form()
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  train = linear_task.closed_form_gradients(linear_task.NUM_TRAIN, 0, params)
  expected = np.einsum('ni,ni->n', train, np.linalg.solve(hessian, train.T).T)
  order = positions_by_id(index)
  leaders = np.argsort(-expected)[:10].tolist()
  rows = found.json['results']
  assert [order[row['id']] for row in rows] == leaders
  np.testing.assert_allclose(
    [row['score'] for row in rows], expected[leaders], rtol=1e-4
  )


def test_removing_a_proponent_raises_the_query_loss(
  influence, workdir, task_flags, index
):
  """The sign of a score, by training again without the example."""
  found = influence(
    'topk',
    *task_flags,
    *('--index', index, '--query_split', 'test', '--k', 1, '--json'),
  )
  hessian, design, y = linear_task.closed_form()
  x, targets = linear_task.points(20, seed=1)
  queries = np.concatenate([np.ones((20, 1)), x], axis=1)
  order = positions_by_id(index)

  def losses(keep):
    ridge = linear_task.L2_WEIGHT * np.eye(len(hessian))
    theta = np.linalg.solve(
      design[keep].T @ design[keep] / len(y) + ridge,
      design[keep].T @ y[keep] / len(y),
    )
    return 0.5 * np.square(queries @ theta - targets)

  everything = np.ones(len(y), bool)
  before = losses(everything)
  names = list(dict.fromkeys(row['query_id'] for row in found.json['results']))
  for row in found.json['results']:
    keep = everything.copy()
    keep[order[row['id']]] = False
    query = names.index(row['query_id'])
    change = losses(keep)[query] - before[query]
    assert np.sign(change) == np.sign(row['score'])
    # First order in 1/N, for one of 303 examples of unequal weight.
    np.testing.assert_allclose(change * len(y), row['score'], rtol=0.35)


def positions_by_id(index):
  opened = index_reader.Index(str(index))
  ids = opened.rows(columns=['id'])['id'].to_pylist()
  return {example_id: position for position, example_id in enumerate(ids)}
