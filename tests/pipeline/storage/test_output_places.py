"""No output goes into another one, and none takes the place of one."""

import shutil

import pytest

from influence_core import errors
from pipeline.storage import output_places
from pipeline.upkeep import generations


@pytest.mark.parametrize('kind', ['index', 'basis', 'results'])
def test_places_of_others_are_refused(basis, index, tmp_path, kind):
  output_places.check(str(tmp_path / 'new' / 'below'), kind)
  for owner, place in (('index', index), ('basis', basis)):
    if kind == owner:
      output_places.check(str(place), kind)
    else:
      with pytest.raises(errors.InputError, match=f'is the {owner} at'):
        output_places.check(str(place), kind)
    for inside in ('x', 'x/y.parquet'):
      with pytest.raises(errors.InputError, match=f'inside the {owner} at'):
        output_places.check(str(place / inside), kind)


def test_an_index_that_was_never_published_is_one(tmp_path):
  (tmp_path / 'i' / 'shards').mkdir(parents=True)
  assert output_places.kind_at(str(tmp_path / 'i')) is None
  (tmp_path / 'i' / 'plans').mkdir()
  assert output_places.kind_at(str(tmp_path / 'i')) == 'index'


def test_commands(influence, task_flags, basis, index, tmp_path):
  query = ['--query_split', 'test[:2]']
  several = [*task_flags, '--index', index, *query]
  commands = [
    ['project', *task_flags, '--basis', basis, '--index', basis],
    ['project', *task_flags, '--basis', basis, '--index', basis / 'index'],
    ['fit-basis', *task_flags, '--out', index],
    ['random-basis', *task_flags, '--out', index / 'basis'],
    ['query-basis', *task_flags, *query, '--out', index],
    ['topk', *several, '--out', index / 'top.parquet'],
    ['self-influence', '--index', index, '--out', basis / 'top.csv'],
    ['export', '--index', index, '--out', index / 'rows.parquet'],
    ['evaluate', 'lds', *several, '--out', index],
    ['evaluate', 'counterfactual', *several, '--out', index],
    ['evaluate', 'retrieval', *several, '--relevant', 'true', '--out', basis],
    ['evaluate', 'agreement', *several, '--reference', index, '--out', index],
    ['evaluate', 'detection', '--index', index, '--bad', '1', '--out', basis],
    ['evaluate', 'sensitivity', *task_flags, *query, '--out', basis],
    ['demo', '--out', index],
    ['reproduce', 'digits', '--out', basis / 'r'],
    ['train-example', 'digits_cnn', '--workdir', index],
  ]
  before = _files(basis), _files(index)
  for command in commands:
    line = influence(*command).error_line
    assert 'choose a place of its own' in line, command
  assert (_files(basis), _files(index)) == before


def _files(directory):
  return sorted(directory.rglob('*'))


def test_garbage_of_an_index_is_its_own(index, tmp_path):
  """Why: what looks like an index's is deleted with it."""
  copy = tmp_path / 'i'
  shutil.copytree(index, copy)
  garbage = generations.find_garbage(str(copy), num_kept=1, grace_seconds=0)
  (copy / 'plan-of-mine.txt').write_text('x')
  more = generations.find_garbage(str(copy), num_kept=1, grace_seconds=0)
  assert len(more.paths) == len(garbage.paths) + 1
