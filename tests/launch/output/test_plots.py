"""Names in plots; what they show is looked at."""

import json
import os

import hypothesis
from hypothesis import strategies as st
import pytest

from launch.output import evaluation_report, plots


def test_names_are_what_differs():
  paths = ['/r/model/arnoldi/index', '/r/model/ekfac/index']
  assert plots.short_names(paths) == ['arnoldi', 'ekfac']
  assert plots.short_names(['/r/a/index', '/r/b']) == ['a/index', 'b']
  assert plots.short_names(['gs://b/one', 'gs://b/two']) == ['one', 'two']
  assert plots.short_names(['/r/a/index']) == ['index']


def test_baselines_keep_their_names_beside_indexes():
  methods = ['/r/model/arnoldi/index', 'bm25', '/r/model/ekfac/index']
  found = evaluation_report.short_names(methods)
  assert found == ['arnoldi', 'bm25', 'ekfac']


@pytest.mark.parametrize(
  ('paths', 'names'),
  [
    (
      ['gs://b/m/ekfac/index', '/r/arnoldi/index'],
      ['gs://b/m/ekfac', '/r/arnoldi'],
    ),
    (['gs://b/m/index', 'runs/m/index'], ['gs://b', 'runs']),
    (['index', '/cwd/runs/index'], ['index', 'runs/index']),
    (['gs://b/x/index', 's3://b/x/index'], ['gs://b', 's3://b']),
    (['gs://b', 'b', '/b'], ['gs://b', '/cwd/b', '/b']),
    (['runs/a/index', '/cwd/runs/b/index'], ['a', 'b']),
    (['./a/', 'a', '../a'], ['a', 'a (2)', '../a']),
    (['/r/b', '/r/b/b'], ['b', 'b/b']),
    (['/r/a', '/r/a'], ['a', 'a (2)']),
    (['/', '/'], ['/', '/ (2)']),
    ([], []),
  ],
)
def test_names_of_any_mixture(paths, names, monkeypatch):
  monkeypatch.setattr(os, 'getcwd', lambda: '/cwd')
  assert plots.short_names(paths) == names


_PART = st.sampled_from(['a', 'b', 'index', '..', '.', ''])


@hypothesis.given(
  st.lists(
    st.builds(
      lambda root, parts: root + '/'.join(parts),
      st.sampled_from(['', '/', 'gs://', 's3://', 'gs://b/']),
      st.lists(_PART, max_size=4),
    ).filter(bool),
    max_size=5,
  )
)
def test_no_two_names_are_the_same(paths):
  names = plots.short_names(paths)
  assert len(set(names)) == len(names) == len(paths)


# A figure that rounding, or the bias of a resampled one, puts outside.
@pytest.mark.parametrize('mean', [0.5, 0.4 - 1e-17, 0.3])
def test_any_interval_is_drawn(mean):
  points = [plots.Interval('$a$ and \\foo', mean, 0.4, 0.6)]
  page = plots.intervals({'s': points}, title='$\\foo$', joined=False).decode()
  assert '$\\foo$' in page


def commands(index, task, out):
  """Each that draws, as fast as it goes."""
  queries = ['--query_split', 'test[:2]']
  own = [*task, '--index', index, *queries, '--out', out]
  return {
    'detection': ['--index', index, '--bad', 'half = 1', '--out', out],
    'retrieval': [*own, '--relevant', 'half = query_half'],
    'agreement': [*own, '--reference', index],
    'lds': [*own, '--num_subsets', 2],
    'counterfactual': [*own, '--k', 3],
    'sensitivity': [
      *(*task, '--bad', 'half = 1', '--out', out),
      *('--fixed', 'projection_dim=2', '--knob', 'damping=1'),
    ],
  }


@pytest.mark.slow
@pytest.mark.parametrize('name', commands('', [], ''))
def test_results_are_there_when_a_picture_fails(
  influence, task_flags, index, monkeypatch, tmp_path, name
):
  there = []

  def fail(_):
    there.extend(x.name for x in tmp_path.iterdir())
    raise ZeroDivisionError('no ink')

  monkeypatch.setattr(plots, '_svg', fail)
  command = commands(index, task_flags, tmp_path)[name]
  done = influence('evaluate', name, *command, '--json')
  assert done.status == 0, done.stderr
  assert {f'{name}.json', f'{name}.parquet'} <= set(there)
  assert json.loads((tmp_path / f'{name}.json').read_text()) == done.json
  assert 'cannot be drawn (ZeroDivisionError: no ink); the' in done.stderr
  assert not list(tmp_path.glob('*.svg'))


def test_an_index_named_in_two_ways_is_one(
  influence, task_flags, index, tmp_path, monkeypatch
):
  monkeypatch.chdir(index.parent)
  done = influence(
    *('evaluate', 'agreement', *task_flags, '--query_split', 'test[:2]'),
    *('--index', index, '--index', 'index', '--reference', index),
    *('--out', tmp_path, '--json'),
  )
  assert done.status == 0, done.stderr
  picture = (tmp_path / 'agreement.svg').read_text()
  assert '<!-- index -->' in picture
  assert '(2)' not in picture
  assert len(done.json['agreement']) == 1


def test_labels_of_a_plot_are_in_it():
  series = {'score': [plots.Interval('arnoldi', 0.5, 0.4, 0.6)]}
  page = plots.intervals(series, title='all of it', joined=True).decode()
  for text in ('<svg', 'score', 'arnoldi', 'all of it'):
    assert text in page
