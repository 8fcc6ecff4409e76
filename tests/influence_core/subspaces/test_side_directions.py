"""Directions of sides against the eigenvectors of the whole moment."""

import numpy as np
import pytest

from influence_core.subspaces import layers as layers_lib, side_directions

SIZE, COUNT = 700, 16


def moment_of(decay):
  """Positive, with eigenvalues 1, 2^-decay, 3^-decay, ..."""
  generator = np.random.default_rng(0)
  basis = np.linalg.qr(generator.standard_normal((SIZE, SIZE)))[0]
  return (basis * np.arange(1, SIZE + 1.0) ** -decay) @ basis.T


def searched_by(stack, count):
  searched = dict(side_directions.random_directions([stack], {'w': count}, 0))
  return searched.get('w', {})


def found_in(moment, kind='leading'):
  """[row, count] as the fit finds them, of products with directions."""
  stack = layers_lib.LayerStack('w', 1, SIZE, 4)
  searched = searched_by(stack, (COUNT, 4))
  assert searched.keys() == {'rows'}
  moments = {
    'w/rows': moment[None] @ searched['rows'],
    'w/columns': np.eye(4)[None],
  }
  return found_by(stack, moments, (COUNT, 4), searched, kind)


def found_by(stack, moments, counts, searched, kind):
  found = side_directions.find(
    *(stack, moments, counts, searched),
    kind=kind,
    generator=np.random.default_rng(0),
  )
  return found['rows'][0].astype(np.float64)


def whitened(moment, count, trace):
  """Orthonormal (M + e)^-1/2 R, with what `found_by` draws."""
  values, vectors = np.linalg.eigh(moment)
  roots = np.sqrt(np.maximum(values, 0) + 0.1 * trace / len(moment))
  random = np.random.default_rng(0).standard_normal((len(moment), count))
  return np.linalg.qr(vectors / roots @ vectors.T @ random)[0]


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


def small_sides():
  stack = layers_lib.LayerStack('w', 1, 8, 4)
  assert not searched_by(stack, (2, 2))
  moment = np.diag(np.arange(8.0))
  return stack, {'w/rows': moment[None], 'w/columns': np.eye(4)[None]}


def test_small_sides_have_the_eigenvectors():
  found = found_by(*small_sides(), (2, 2), {}, 'leading')
  np.testing.assert_array_equal(np.abs(found), np.eye(8)[:, [7, 6]])


def same_span(one, other, tolerance):
  np.testing.assert_allclose(one @ one.T, other @ other.T, atol=tolerance)


def test_whitened_directions_of_small_sides():
  stack, moments = small_sides()
  found = found_by(stack, moments, (2, 2), {}, 'whitened')
  [moment] = moments['w/rows']
  # float32 directions.
  same_span(found, whitened(moment, 2, np.trace(moment)), 1e-6)


def test_whitened_directions_of_large_sides():
  # Of low rank, so that all eigenvalues are found; the trace is estimated.
  factor = np.random.default_rng(1).standard_normal((SIZE, COUNT))
  moment = factor @ factor.T
  stack = layers_lib.LayerStack('w', 1, SIZE, 4)
  tried = searched_by(stack, (COUNT, 4))['rows'][0]
  trace = np.sum(tried * (moment @ tried)) / tried.shape[1]
  # Of 16 equal eigenvalues and 64 probes, within sqrt(2 / (16 * 64)) = 4 %.
  np.testing.assert_allclose(trace, np.trace(moment), rtol=0.1)
  found = found_in(moment, 'whitened')
  same_span(found, whitened(moment, COUNT, trace), 1e-4)


def test_whitened_directions_hold_what_is_small_as_well():
  moment = moment_of(2)
  found = found_in(moment, 'whitened')
  np.testing.assert_allclose(found.T @ found, np.eye(COUNT), atol=1e-5)
  # Random ones that are not whitened hold COUNT / SIZE of the moment.
  held = np.trace(found.T @ moment @ found)
  assert held < COUNT / SIZE * np.trace(moment)


def test_nothing_is_no_error_when_whitened():
  found = found_in(np.zeros((SIZE, SIZE)), 'whitened')
  np.testing.assert_allclose(found.T @ found, np.eye(COUNT), atol=1e-5)
