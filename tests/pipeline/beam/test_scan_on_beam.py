import numpy as np
import pytest

from influence_core.scores.options import ScoreOptions
from pipeline import open_index
from pipeline.beam import (
  runner_options as runner_options_lib,
  scan_on_beam as search_on_beam,
)
from pipeline.beam.engines import EngineChoice
from pipeline.search import retrieve, selection as selection_lib


@pytest.mark.parametrize(
  'selection',
  [
    selection_lib.EVERYTHING,
    selection_lib.Selection(where='loss < 1', group_by='half'),
    selection_lib.Selection(excluded_ids=('a', 'b', 'c')),
  ],
)
@pytest.mark.parametrize('mode', ['in_memory', 'multi_threading'])
def test_gives_what_a_local_search_gives(index, monkeypatch, selection, mode):
  monkeypatch.setattr(search_on_beam, '_SHARDS_PER_ELEMENT', 2)
  opened = open_index(str(index))
  queries = opened.projections(range(3))
  options = ScoreOptions(normalization='cosine')
  arguments = {'k': 7, 'options': options, 'selection': selection}
  scan = search_on_beam.on_runner(
    runner_options_lib.make_options(
      EngineChoice('local', 2, [f'--direct_running_mode={mode}']), tell=print
    )
  )
  found = retrieve.search(opened, queries, scan=scan, **arguments)
  expected = retrieve.search(opened, queries, **arguments)
  assert found.keys() == expected.keys()
  for value, result in expected.items():
    for name in ('proponents', 'opponents', 'self_influence'):
      one, other = getattr(found[value], name), getattr(result, name)
      np.testing.assert_array_equal(one.positions, other.positions)
      np.testing.assert_array_equal(one.scores, other.scores)
  # Nothing stays.
  assert list((index / 'searches').iterdir()) == []


@pytest.mark.slow
def test_command_takes_beam_options(influence, task_flags, index):
  command = [
    *('topk', *task_flags, '--index', index, '--query_split', 'test[:4]'),
    *('--k', 5, '--json'),
  ]
  expected = influence(*command).json['results']
  found = influence(*command, '--', '--direct_num_workers=2')
  assert found.json['results'] == expected
  wrong = influence(*command, '--', '--runer=X')
  assert 'did you mean --runner?' in wrong.error_line
