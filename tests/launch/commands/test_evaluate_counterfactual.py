"""Training without the top proponents, where the model has a closed form."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest


@pytest.fixture(name='counterfactual')
def fixture_counterfactual(influence, task_flags, index, tmp_path):
  def run(*more):
    return influence(
      *('evaluate', 'counterfactual', *task_flags, '--index', index),
      *('--query_split', 'test[:6]', '--k', 30, '--out', tmp_path / 'cf'),
      *more,
    )

  return run


@pytest.mark.slow
def test_losses_rise_without_proponents(counterfactual, tmp_path):
  done = counterfactual('--baseline', 'gradient_norm', '--json')
  assert done.status == 0, done.stderr
  proponents, largest, random = done.json['changes']
  assert largest['removed'] == 'gradient_norm'
  # The same examples whatever the query: one training for all.
  kept = os.listdir(tmp_path / 'cf' / 'retrainings')
  assert len(kept) == 1 + 6 + 1 + 6
  # Every query is hurt; random examples are missed by nobody in particular.
  stored = pq.read_table(tmp_path / 'cf' / 'counterfactual.parquet')
  assert (stored['proponents'].to_numpy() > 0).all()
  assert proponents['low'] > random['high']
  mean = np.mean(stored['random'].to_numpy())
  assert random['change_of_loss'] == pytest.approx(mean)
  written = (tmp_path / 'cf' / 'counterfactual.json').read_text()
  assert '<svg' in (tmp_path / 'cf' / 'counterfactual.svg').read_text()
  assert json.loads(written) == done.json


def test_other_seed_removes_other_random_examples(counterfactual):
  first = counterfactual('--json').json['changes']
  other = counterfactual('--json', '--seed', 1).json['changes']
  assert first[0]['change_of_loss'] == other[0]['change_of_loss']
  assert first[1]['change_of_loss'] != other[1]['change_of_loss']


@pytest.mark.parametrize('k', [0, 303])
def test_k_is_checked(counterfactual, k):
  assert f'k is {k}, expected 1 to less' in counterfactual('--k', k).error_line
