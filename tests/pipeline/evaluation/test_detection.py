"""Detection figures against hand-made rankings, and the command on an index."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline.evaluation import detection
from pipeline.index import reader as index_reader


def rankings(**scores):
  is_bad = np.array([True, True, False, False, False, False])
  return detection.Rankings(
    is_bad, {name: np.array(x, float) for name, x in scores.items()}
  )


def test_figures_of_rankings_known_by_hand():
  table = detection.measure(
    rankings(
      perfect=[6, 5, 4, 3, 2, 1],
      worst=[1, 2, 3, 4, 5, 6],
      # Bad, good, bad: precision 1 at half of the recall, 2/3 at all of it.
      mixed=[6, 4, 5, 3, 2, 1],
    ),
    num_first=2,
    num_bootstrap=0,
    seed=0,
  )
  rows = {row.pop('score'): row for row in table.to_pylist()}
  assert rows['perfect'] == {
    'auc': 1.0,
    'average_precision': 1.0,
    'precision_at_2': 1.0,
  }
  assert rows['worst']['auc'] == 0.0
  assert rows['worst']['precision_at_2'] == 0.0
  # One of eight pairs of bad and good is in the wrong order.
  assert rows['mixed']['auc'] == pytest.approx(7 / 8)
  assert rows['mixed']['average_precision'] == pytest.approx((1 + 2 / 3) / 2)
  assert rows['mixed']['precision_at_2'] == 0.5


def test_intervals_hold_the_figure_and_shrink():
  generator = np.random.default_rng(0)

  def interval(size):
    is_bad = np.arange(size) % 5 == 0
    scores = is_bad + generator.normal(size=size)
    table = detection.measure(
      detection.Rankings(is_bad, {'x': scores}),
      num_first=10,
      num_bootstrap=50,
      seed=1,
    )
    (row,) = table.to_pylist()
    for name in ('auc', 'average_precision'):
      assert row[f'{name}_low'] < row[name] < row[f'{name}_high']
    return row['auc_high'] - row['auc_low']

  assert interval(4000) < 0.5 * interval(200)


@pytest.mark.parametrize('is_bad', [[1, 1, 0], [0, 0, 1], [0, 1]])
def test_intervals_are_of_resamples_with_both_kinds(is_bad):
  found = detection.Rankings(
    np.array(is_bad, bool), {'x': np.arange(len(is_bad), dtype=float)}
  )
  (row,) = detection.measure(
    found, num_first=1, num_bootstrap=40, seed=0
  ).to_pylist()
  for name in ('auc', 'average_precision'):
    assert 0 <= row[f'{name}_low'] <= row[f'{name}_high'] <= 1


@pytest.mark.parametrize('is_bad', [[True, True], [False, False]])
def test_rankings_have_both_kinds(is_bad):
  with pytest.raises(errors.InputError, match='expected some, but not all'):
    detection.Rankings(np.array(is_bad), {})


def test_curves_go_through_what_is_known():
  table = detection.curves(rankings(mixed=[6, 4, 5, 3, 2, 1])).to_pylist()
  points = [(row['recall'], row['precision']) for row in table]
  assert (0.5, 1.0) in points
  assert (1.0, pytest.approx(2 / 3)) in points


def test_command_writes_what_it_prints(influence, index, tmp_path):
  flags = ['--index', index, '--bad', 'half = 1 and loss > 0.1']
  flags += ['--num_bootstrap', 5, '--out', tmp_path / 'e']
  done = influence('evaluate', 'detection', *flags, '--json')
  assert done.status == 0, done.stderr
  result = done.json
  assert json.loads((tmp_path / 'e' / 'detection.json').read_text()) == result
  names = [row['score'] for row in result['scores']]
  assert names == ['self_influence', 'loss', 'gradient_norm', 'random']
  stored = pq.read_table(tmp_path / 'e' / 'detection.parquet').to_pylist()
  assert stored == result['scores']
  assert pq.read_table(tmp_path / 'e' / 'curves.parquet').num_rows > 100
  assert (tmp_path / 'e' / 'detection.svg').read_text().count('<svg') == 1
  shown = influence('evaluate', 'detection', *flags).stdout
  assert f'{result["num_bad"]} of 303 examples are bad' in shown


def test_rankings_are_those_of_the_index(index):
  found = detection.read_rankings(
    index_reader.Index(str(index)),
    bad='loss > 1',
    where=None,
    options=ScoreOptions(),
    seed=0,
  )
  # What is bad by its loss, the loss finds.
  table = detection.measure(found, num_first=5, num_bootstrap=0, seed=0)
  by_name = {row['score']: row for row in table.to_pylist()}
  assert by_name['loss']['auc'] == 1.0
  opened = index_reader.Index(str(index))
  assert found.is_bad.sum() == sum(
    x > 1 for x in opened.rows(columns=['loss'])['loss'].to_pylist()
  )


def test_only_some_rows_are_ranked(index):
  opened = index_reader.Index(str(index))

  def found(where):
    return detection.read_rankings(
      opened,
      bad='loss > 1',
      where=where,
      options=ScoreOptions(),
      seed=0,
    )

  everything, half = found(None), found('half = 1')
  chosen = np.array(opened.rows(columns=['half'])['half'].to_pylist()) == 1
  np.testing.assert_array_equal(half.is_bad, everything.is_bad[chosen])
  for name in ('self_influence', 'loss', 'gradient_norm'):
    np.testing.assert_array_equal(
      half.scores[name], everything.scores[name][chosen]
    )


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--bad', 'nonsense = 1'], 'cannot be used'),
    (['--bad', 'loss >= 0'], 'is true of 303 of 303 examples'),
    (['--bad', 'loss < 0'], 'is true of 0 of 303 examples'),
    (['--bad', 'half = 1', '--num_first', 0], 'num_first is 0'),
    (['--bad', 'half = 1', '--out', '/proc/e'], 'cannot write to /proc/e'),
  ],
)
def test_mistakes_are_told(influence, index, flags, message):
  found = influence('evaluate', 'detection', '--index', index, *flags)
  assert message in found.error_line
