"""What a model says of many queries, a few at a time where memory is short."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.devices import memory as device_memory, program
from pipeline.tasks import queries
from tests.kit import basis_fits

COUNT = 150


@pytest.fixture(name='loaded')
def fixture_loaded(workdir):
  return basis_fits.load(workdir)


@pytest.fixture(name='sizes')
def fixture_sizes(monkeypatch):
  """How many examples the chosen programs take."""
  found = []
  largest = program.largest_program

  def noting(*arguments, **options):
    chosen = largest(*arguments, **options)
    found.append(chosen.micro_batch)
    return chosen

  monkeypatch.setattr(program, 'largest_program', noting)
  return found


def described(loaded):
  raw = loaded.task.corpus.read_positions(range(COUNT))
  return queries.described(loaded, loaded.preprocess_batch(raw))


def test_many_queries_are_evaluated_in_pieces(loaded, monkeypatch, sizes):
  plenty = described(loaded)
  # Beside the parameters there is room for 15 numbers.
  budget = 4 * (sum(leaf.size for leaf in loaded.params.values()) + 15)
  monkeypatch.setattr(device_memory, 'default_budget_bytes', lambda: budget)
  little = described(loaded)
  assert sizes[0] == 64
  assert 1 <= sizes[1] <= 15
  np.testing.assert_allclose(little['loss'], plenty['loss'], rtol=1e-6)
  assert little.drop_columns('loss') == plenty.drop_columns('loss')
  assert little.num_rows == COUNT


def test_a_query_that_no_memory_is_left_for(loaded, monkeypatch):
  budget = 4 * sum(leaf.size for leaf in loaded.params.values())
  monkeypatch.setattr(device_memory, 'default_budget_bytes', lambda: budget)
  with pytest.raises(errors.InputError, match='one example needs'):
    described(loaded)
