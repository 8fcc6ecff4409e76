"""Directions of large sides against the eigenvectors of the whole moment."""

import numpy as np
import pytest

from influence_core.subspaces import layers as layers_lib, leading_directions

SIZE, COUNT = 700, 16


def moment_of(decay):
  """Positive, with eigenvalues 1, 2^-decay, 3^-decay, ..."""
  generator = np.random.default_rng(0)
  basis = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))[0]
  return (basis * np.arange(1, SIZE + 1.0) ** -decay) @ basis.T


def found_in(moment):
  """[row, count] as the fit finds them, and how many were searched among."""
  stack = layers_lib.LayerStack('w', 1, SIZE, 4)
  counts = {'w': (COUNT, 4)}
  searched = dict(leading_directions.random_directions([stack], counts, 0))
  assert searched['w'].keys() == {'rows'}
  moments = {
    'w/rows': moment[None] @ searched['w']['rows'],
    'w/columns': np.eye(4)[None],
  }
  found = leading_directions.find(stack, moments, (COUNT, 4), searched['w'])
  return found['rows'][0].astype(np.float64)


@pytest.mark.parametrize('decay', [1, 2])
def test_nearly_as_much_is_held_as_by_eigenvectors(decay):
  moment = moment_of(decay)
  found = found_in(moment)
  np.testing.assert_allclose(found.T @ found, np.eye(COUNT), atol=1e-5)
  held = np.trace(found.T @ moment @ found)
  best = np.linalg.eigvalsh(moment)[-COUNT:].sum()
  # Where eigenvalues fall as slowly as 1/n, a few hundredths are lost.
  assert 0.95 * best <= held <= best * (1 + 1e-5)


def test_a_moment_of_low_rank_is_found_exactly():
  factor = np.random.default_rng(1).standard_normal((SIZE, COUNT))
  moment = factor @ factor.T
  found = found_in(moment)
  held = np.trace(found.T @ moment @ found)
  np.testing.assert_allclose(held, np.trace(moment), rtol=1e-5)


def test_nothing_is_no_error():
  found = found_in(np.zeros((SIZE, SIZE)))
  np.testing.assert_allclose(found.T @ found, np.eye(COUNT), atol=1e-5)


def test_small_sides_have_the_eigenvectors():
  stack = layers_lib.LayerStack('w', 1, 8, 4)
  assert not list(
    leading_directions.random_directions([stack], {'w': (2, 2)}, 0)
  )
  moments = {
    'w/rows': np.diag(np.arange(8.0))[None],
    'w/columns': np.eye(4)[None],
  }
  found = leading_directions.find(stack, moments, (2, 2), {})
  np.testing.assert_array_equal(np.abs(found['rows'][0]), np.eye(8)[:, [7, 6]])
