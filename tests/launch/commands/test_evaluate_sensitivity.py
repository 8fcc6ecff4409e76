"""Every knob, one at a time, on the task with a closed form."""

import os

import pyarrow.parquet as pq
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.flags import sensitivity
from pipeline.bases import fit_basis_config


@pytest.fixture(name='measure')
def fixture_measure(influence, task_flags, tmp_path):
  def run(*more):
    return influence(
      *('evaluate', 'sensitivity', *task_flags, '--out', tmp_path / 's'),
      *('--num_subsets', 10, *more),
    )

  return run


@pytest.mark.slow
def test_every_kind_of_knob(measure, tmp_path):
  """Of scores, of the basis, and of the parameters."""
  knobs = [
    'projection_dim=1,6',
    'sample_size=50,303',
    'parameter_paths=.*,bias',
  ]
  flags = [x for knob in knobs for x in ('--knob', knob)]
  metrics = ['--query_split', 'test[:8]', '--bad', 'half = 1']
  done = measure(*flags, *metrics, '--json')
  assert done.status == 0, done.stderr
  rows = {
    (row['knob'], row['value'], row['metric']): row for row in done.json['rows']
  }
  assert len(rows) == 12
  few, all_pairs = (
    rows['projection_dim', dim, 'lds']['mean'] for dim in ('1', '6')
  )
  assert all_pairs > 0.7 > few
  # Each knob leaves the others alone: this is the same setting.
  assert rows['sample_size', '303', 'lds']['mean'] == all_pairs
  assert rows['parameter_paths', '.*', 'lds']['mean'] == all_pairs
  assert rows['parameter_paths', 'bias', 'lds']['mean'] < all_pairs
  for row in rows.values():
    assert row['low'] <= row['mean'] <= row['high']
  written = os.listdir(tmp_path / 's')
  assert {'sensitivity_sample_size.svg', 'sensitivity.json'} <= set(written)
  table = pq.read_table(tmp_path / 's' / 'sensitivity.parquet')
  assert table.num_rows == 12
  # A second run trains nothing again.
  kept = os.listdir(tmp_path / 's' / 'retrainings')
  assert measure(*flags, *metrics, '--json').json == done.json
  assert os.listdir(tmp_path / 's' / 'retrainings') == kept


@pytest.mark.slow
def test_others_are_as_fixed(measure):
  metrics = ['--query_split', 'test[:8]', '--json', '--knob', 'damping=0,1']

  def found(*fixed):
    flags = [x for text in fixed for x in ('--fixed', text)]
    rows = measure(*metrics, *flags).json['rows']
    return [row['mean'] for row in rows]

  default = found()
  assert found('num_iterations=200', 'projection_dim=150') == default
  fewer = found('projection_dim=2', 'num_iterations=6')
  assert fewer[0] < default[0]
  # What is varied is not fixed.
  assert found('damping=5') == default
  assert found('normalization=cosine') != default


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    ([], 'there is nothing to measure; give --query_split'),
    (['--bad', 'half = 1', '--knob', 'nothing=3'], "knob is 'nothing'"),
    (['--bad', 'half = 1', '--fixed', 'nothing=3'], "knob is 'nothing'"),
    (['--bad', 'half = 1', '--knob', 'nothing'], 'expected NAME=VALUE'),
    (['--bad', 'half = 1', '--knob', 'damping=x'], "damping is 'x', expected"),
    (['--bad', 'half = 1', '--knob', 'curvature=x'], "curvature is 'x'"),
  ],
)
def test_mistakes_are_told(measure, flags, message):
  assert message in measure(*flags).error_line


def test_default_knobs_are_possible():
  base = sensitivity.Setting(fit_basis_config.FitBasisConfig(), ScoreOptions())
  made = sensitivity.settings(base, sensitivity.DEFAULT_KNOBS)
  for knob, text, setting in made:
    if knob == 'negative_eigenvalues':
      assert setting.config.keep_negative
    values = [getattr(x, knob) for x in setting[:2] if hasattr(x, knob)]
    assert text in map(str, values) or float(text) in values


def test_relative_damping_has_a_trace_to_be_relative_to():
  config = fit_basis_config.FitBasisConfig(num_trace_probes=0)
  base = sensitivity.Setting(config, ScoreOptions())
  assert base.with_value('damping', '0.1x').config.num_trace_probes == 8
  assert base.with_value('damping', '0.1').config.num_trace_probes == 0


def test_values_have_the_type_of_their_field():
  base = sensitivity.Setting(fit_basis_config.FitBasisConfig(), ScoreOptions())
  assert base.with_value('damping', '1').options.damping == 1.0
  assert base.with_value('damping', '0.1x').options.damping == '0.1x'
  assert base.with_value('max_vectors', '60').config.max_vectors == 60
  assert base.with_value('check_sample', 'true').config.check_sample is True
  with pytest.raises(errors.InputError, match='expected int'):
    base.with_value('seed', 'x')
