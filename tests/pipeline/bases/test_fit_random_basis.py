"""Random bases against closed forms, and served like any other basis."""

import numpy as np
import pytest

from influence_core import errors
from influence_core.baselines import random_basis
from pipeline import open_index
from pipeline.bases import stored_basis
from pipeline.tasks import checkpoints
from tests.kit import linear_task


@pytest.fixture(name='make')
def fixture_make(influence, task_flags, tmp_path):
  def run(*flags, name='b'):
    return influence(
      'random-basis', *task_flags, '--out', tmp_path / name, *flags
    )

  return run


def gradients(workdir):
  """Closed-form gradients of the training examples, [count, 6]."""
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  return linear_task.closed_form_gradients(linear_task.NUM_TRAIN, 0, params)


def test_gram_of_all_directions_is_the_fisher_matrix(
  make, influence, task_flags, tmp_path, workdir
):
  """Where random directions span all six, R'(R F R')^+ R = F^-1."""
  flags = ['--projection_dim', 6, '--seed', 1, '--json']
  assert len(make(*flags).json['eigenvalues']) == 6
  index = ['--index', tmp_path / 'i', '--basis', tmp_path / 'b']
  assert influence('project', *task_flags, *index).status == 0
  opened = open_index(str(tmp_path / 'i'))
  train = gradients(workdir)
  fisher = train.T @ train / len(train)
  expected = np.einsum('ij,jk,ik->i', train, np.linalg.inv(fisher), train)
  # Projections are float32, and the Gram matrix has a condition of 1e3.
  np.testing.assert_allclose(opened.self_influence(), expected, rtol=1e-3)


def test_many_signs_keep_inner_products():
  count = 4000
  rows = np.concatenate(
    [
      random_basis.random_vectors(
        shape, path, projection_dim=count, seed=0
      ).reshape(count, -1)
      for path, shape in (('bias', ()), ('weights', (5,)))
    ],
    axis=1,
  )
  # Each entry is a mean of `count` products of signs: five deviations.
  np.testing.assert_allclose(rows.T @ rows, np.eye(6), atol=5 / np.sqrt(count))


def test_directions_count_alike(make, tmp_path):
  assert make('--projection_dim', 4, '--method', 'random').status == 0
  record = stored_basis.load_record(str(tmp_path / 'b'))
  np.testing.assert_array_equal(record.eigenvalues, np.ones(4))


def test_seed_decides(make, tmp_path):
  flags = ['--projection_dim', 4, '--method', 'random']
  for name, seed in (('a', 1), ('b', 1), ('c', 2)):
    assert make(*flags, '--seed', seed, name=name).status == 0
  records = [stored_basis.load_record(str(tmp_path / x)) for x in 'abc']
  assert records[0].fingerprint == records[1].fingerprint
  assert records[0].fingerprint != records[2].fingerprint


def test_what_is_there_is_found_or_refused(make):
  assert make('--projection_dim', 4).status == 0
  assert len(make('--projection_dim', 4, '--json').json['eigenvalues']) == 4
  line = make('--projection_dim', 3).error_line
  assert 'has projection_dim 4, not 3; choose another --out' in line


def test_pairs_that_the_sample_cannot_have_are_left_out(make):
  made = make('--projection_dim', 6, '--sample_size', 3, '--json').json
  assert len(made['eigenvalues']) == 3
  assert made['report']['sample_size'] == 3


def test_gram_pairs_are_eigenpairs():
  generator = np.random.default_rng(0)
  projections = generator.normal(size=(50, 8)).astype(np.float32)
  eigenvalues, vectors = random_basis.gram_pairs(projections)
  gram = projections.T.astype(float) @ projections / 50
  np.testing.assert_allclose(
    vectors @ gram @ vectors.T, np.diag(eigenvalues), atol=1e-6
  )
  assert (np.diff(eigenvalues) <= 0).all()
  with pytest.raises(errors.InputError, match='gradients of the sample are'):
    random_basis.gram_pairs(np.zeros((3, 2), np.float32))


def test_description_says_what_it_is(make, influence, tmp_path):
  make('--projection_dim', 4)
  shown = influence('describe', '--basis', tmp_path / 'b').stdout
  assert '4 random vectors, seed 0, weighted by the gradients of 303' in shown


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--projection_dim', 0], 'projection_dim is 0, expected at least 1'),
    (['--method', 'fjlt'], "invalid choice: 'fjlt'"),
    (['--parameter_paths', 'Nothing'], 'selects no floating-point parameter'),
  ],
)
def test_mistakes_are_told(make, flags, message):
  assert message in make(*flags).error_line
