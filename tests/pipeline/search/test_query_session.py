"""An index that is opened once and asked many times."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.bases import stored_basis
from pipeline.search.query_session import QuerySession
from pipeline.search.request import SearchRequest
from pipeline.search.selection import Selection
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference


def test_asked_twice_loads_once(index, monkeypatch):
  """Without a task it is that of the index."""
  calls = []
  for owner, name in (
    (loaded_task.LoadedTask, 'unchecked'),
    (stored_basis, 'load'),
  ):
    function = getattr(owner, name)

    def counted(*arguments, function=function, name=name, **more):
      calls.append(name)
      return function(*arguments, **more)

    monkeypatch.setattr(owner, name, counted)
  session = QuerySession(str(index))
  assert calls == []
  some, others = (session.project(x) for x in ('test[:3]', 'test[3:8]'))
  assert some.projections.shape == (3, 6)
  assert others.projections.shape == (5, 6)
  for queries in (some, others, some):
    session.search(queries, SearchRequest(k=2))
  assert sorted(calls) == ['load', 'unchecked']


def test_search_is_brute_force(index):
  session = QuerySession(str(index))
  queries = session.project('test[:4]')
  scores, ids = session.scores(queries, ScoreOptions())
  [found] = session.search(queries, SearchRequest(k=5)).values()
  expected = np.argsort(-scores, axis=1, kind='stable')[:, :5]
  np.testing.assert_array_equal(found.proponents.positions, expected)
  assert len(ids) == session.index.num_examples


def test_requests_are_checked_before_anything_is_loaded(index):
  session = QuerySession(str(index))
  for request, message in (
    (SearchRequest(selection=Selection(where='absent = 1')), 'cannot be used'),
    (SearchRequest(selection=Selection(group_by='absent')), 'no column'),
    (SearchRequest(options=ScoreOptions(projection_dim=7)), 'expected 1 to 6'),
  ):
    with pytest.raises(errors.InputError, match=message):
      session.check(request)
  assert 'loaded' not in vars(session)
  with pytest.raises(errors.InputError, match='k is 0'):
    SearchRequest(k=0)


def test_arguments_that_are_given_come_first(index):
  """Those of the index stand for the others."""
  task = TaskReference('tests.kit.linear_task:make_task', {'l2_weight': '0.1'})
  session = QuerySession(str(index), task)
  assert session.loaded.task.l2_weight == 0.1
  other = TaskReference(task.import_path, {'fault': 'other_reduction'})
  with pytest.raises(errors.InputError, match='other loss reduction'):
    _ = QuerySession(str(index), other).loaded
