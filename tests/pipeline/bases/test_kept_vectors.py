"""A basis in NO-GO goes on from its vectors, and is replaced as a whole."""

import os
import shutil

import numpy as np
import pytest

from influence_core import errors
from pipeline.bases import (
  basis_generations,
  fit_basis_config,
  kept_vectors,
  krylov_files,
  stored_basis,
)
from pipeline.storage import files as storage
from pipeline.tasks import checkpoints
from tests.kit import linear_task
from tests.kit.basis_fits import (
  KilledError,
  config,
  eigenvectors,
  fit,
  kill_after,
  load,
)

# Too few iterations for pairs that can be relied on, and enough.
FEW = {'projection_dim': 2, 'num_iterations': 3, 'sample_size': 303}
MORE = {**FEW, 'num_iterations': 5}


@pytest.fixture(name='loaded', scope='module')
def fixture_loaded(workdir):
  return load(workdir)


@pytest.fixture(name='few', scope='module')
def fixture_few(loaded, tmp_path_factory):
  path = tmp_path_factory.mktemp('few') / 'basis'
  record, _ = fit(loaded, path, **FEW)
  assert record.report.objections
  return path


@pytest.fixture(name='path')
def fixture_path(few, tmp_path):
  """A copy of that basis."""
  return shutil.copytree(few, tmp_path / 'basis')


@pytest.fixture(name='whole', scope='module')
def fixture_whole(loaded, tmp_path_factory):
  """More iterations in one go; every pair can be relied on."""
  path = tmp_path_factory.mktemp('whole') / 'basis'
  record, _ = fit(loaded, path, **MORE)
  assert not record.report.objections
  assert not (path / 'krylov').exists()
  return record


def find(loaded, path, **values):
  return kept_vectors.find_basis(
    str(path), config(**values), fit_basis_config.Resources(), loaded
  )


def vector_directories(path):
  return [name for name in os.listdir(path) if name.startswith('eigenvectors-')]


def test_more_iterations_give_the_basis_of_one_go(loaded, path, whole):
  old = stored_basis.load_record(str(path))
  steps = []
  record, told = fit(
    loaded, path, progress=lambda done, total: steps.append(done), **MORE
  )
  assert steps == [4, 5]
  assert 'first: continuing after 3 products kept at' in '\n'.join(told)
  # The same products in the same places: equal to the last bit.
  assert record.fingerprint == whole.fingerprint != old.fingerprint
  assert record.eigenvalues == whole.eigenvalues
  found = stored_basis.load_record(str(path))
  assert found == record
  assert found.generation == 2
  np.testing.assert_array_equal(eigenvectors(found), eigenvectors(whole))
  # What a reader had opened is told to be gone, nothing of it stays.
  assert len(vector_directories(path)) == 1
  for read in (stored_basis.load, stored_basis.load_probe):
    with pytest.raises(errors.InputError, match='was fitted further and repl'):
      read(old)
  assert kept_vectors.difference(record, config(**MORE)) is None


def test_auto_goes_on_until_convergence(loaded, path, tmp_path):
  auto = {**FEW, 'num_iterations': None, 'tolerance': 1e-2}
  record, _ = fit(loaded, path, **auto)
  assert record.report.objections == []
  in_one_go, _ = fit(loaded, tmp_path / 'whole', **auto)
  assert record.report.num_iterations == in_one_go.report.num_iterations > 3
  assert record.fingerprint == in_one_go.fingerprint


def test_other_pairs_take_no_product(loaded, path, tmp_path):
  steps = []
  three = {**FEW, 'projection_dim': 3}
  record, _ = fit(
    loaded, path, progress=lambda done, total: steps.append(done), **three
  )
  assert steps == []
  in_one_go, _ = fit(loaded, tmp_path / 'whole', **three)
  assert record.fingerprint == in_one_go.fingerprint
  # It still is NO-GO, so there still are vectors.
  assert find(loaded, path, **MORE) is not None


@pytest.mark.parametrize('placement', ['host', 'device'])
def test_fewer_vectors_at_a_time_than_are_kept(loaded, path, placement):
  """The first restart then comes at once, and kills change nothing."""
  copy = shutil.copytree(path, path.parent / 'killed')
  options = {**FEW, 'placement': placement, 'projection_dim': 1}
  options |= {'max_vectors': 4, 'num_iterations': 9}
  record, _ = fit(loaded, path, **options)
  with pytest.raises(KilledError):
    fit(loaded, copy, progress=kill_after(4), **options)
  again, _ = fit(loaded, copy, **options)
  assert again.fingerprint == record.fingerprint
  hessian, _, _ = linear_task.closed_form()
  # float32 products; nine iterations reach them.
  np.testing.assert_allclose(
    record.eigenvalues[0], np.linalg.eigvalsh(hessian)[-1], rtol=1e-5
  )


def test_killed_while_going_on(loaded, path, whole):
  old = stored_basis.load_record(str(path))
  with pytest.raises(KilledError):
    fit(loaded, path, progress=kill_after(4), **MORE)
  assert stored_basis.load_record(str(path)) == old
  stored_basis.load(old)
  with pytest.raises(errors.InputError, match='4 products are kept'):
    find(loaded, path, **{**FEW, 'projection_dim': 3})
  record, told = fit(loaded, path, **MORE)
  assert 'continuing after 4 products' in '\n'.join(told)
  assert record.fingerprint == whole.fingerprint


def killed(*args, **kwargs):
  raise KilledError


@pytest.mark.parametrize(
  ('module', 'function', 'generation'),
  [
    (checkpoints, 'save_arrays', 1),
    (basis_generations, 'publish', 1),
    (storage, 'remove_directory', 2),
  ],
)
def test_killed_while_replacing_leaves_one_basis(
  loaded, path, whole, monkeypatch, module, function, generation
):
  with monkeypatch.context() as patch:
    patch.setattr(module, function, killed)
    with pytest.raises(KilledError):
      fit(loaded, path, **MORE)
  record = stored_basis.load_record(str(path))
  assert record.generation == generation
  assert stored_basis.load(record).projection_dim == 2
  if generation == 1:
    assert record.report.num_iterations == 3
    record, _ = fit(loaded, path, **MORE)
    assert len(vector_directories(path)) == 1
  assert record.fingerprint == whole.fingerprint


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'seed': 1}, 'has seed 0, not 1; choose another --out'),
    ({'sample_size': 99}, 'has sample_size 303, not 99; choose'),
    ({'curvature': 'gauss_newton'}, 'has curvature hessian, not gauss_newton'),
    ({'krylov_dtype': 'bfloat16'}, 'has krylov_dtype float32, not bfloat16'),
    ({'basis_dtype': 'bfloat16'}, 'has basis_dtype float32, not bfloat16'),
    ({'num_iterations': 2}, '3 products are kept at .*; ask for at least as'),
  ],
)
def test_what_vectors_depend_on_stays(loaded, few, values, message):
  with pytest.raises(errors.InputError, match=message):
    find(loaded, few, **{**FEW, **values})


def test_vectors_of_a_good_basis_are_gone(loaded, whole):
  assert find(loaded, whole.path, **MORE) == whole
  with pytest.raises(
    errors.InputError, match='num_iterations 5, not auto, and no Krylov vectors'
  ):
    find(loaded, whole.path, **{**FEW, 'num_iterations': None})


def test_an_unfinished_iteration_goes_on_too(loaded, tmp_path, whole):
  with pytest.raises(KilledError):
    fit(loaded, tmp_path, progress=kill_after(2), keep_negative=True, **FEW)
  with pytest.raises(
    errors.InputError, match=r'2 products are kept at .* more than num_it'
  ):
    fit(loaded, tmp_path, **{**FEW, 'projection_dim': 1, 'num_iterations': 1})
  record, told = fit(loaded, tmp_path, **MORE)
  assert 'continuing after 2 products' in '\n'.join(told)
  assert record.fingerprint == whole.fingerprint


def test_negative_pairs_take_no_product(workdir, tmp_path):
  """Which are asked for only when no positive one was found."""
  loaded = load(workdir, l2_weight=-1000.0)
  with pytest.raises(errors.InputError, match=r'no eigenvalue .* is positive'):
    fit(loaded, tmp_path, **FEW)
  steps = []
  record, _ = fit(
    loaded,
    tmp_path,
    progress=lambda done, total: steps.append(done),
    keep_negative=True,
    **FEW,
  )
  assert steps == []
  assert max(record.eigenvalues) < 0


def test_begins_again_where_another_process_has_none(
  loaded, tmp_path, whole, monkeypatch
):
  with pytest.raises(KilledError):
    fit(loaded, tmp_path, progress=kill_after(4), **MORE)
  with monkeypatch.context() as patch:
    patch.setattr(krylov_files, 'newest_state', lambda directory: -1)
    with pytest.raises(KilledError):
      fit(loaded, tmp_path, progress=kill_after(2), **MORE)
  record, told = fit(loaded, tmp_path, **MORE)
  assert 'continuing after 2 products' in '\n'.join(told)
  assert record.fingerprint == whole.fingerprint


def test_of_two_that_replace_a_basis_one_wins(tmp_path):
  path = str(tmp_path)
  basis_generations.publish(path, 1, {'by': 'first'})
  basis_generations.publish(path, 2, {'by': 'second'})
  with pytest.raises(errors.InputError, match=r'stored at .* in the meantime'):
    basis_generations.publish(path, 2, {'by': 'third'})
  assert basis_generations.newest(path) == 2


def test_replaced_in_an_object_store(store):
  path = 'gs://bucket/basis'
  assert basis_generations.newest(path) == 0
  basis_generations.publish(path, 1, {})
  store.disturb_next('lost_reply', 'POST')
  basis_generations.publish(path, 2, {})
  assert basis_generations.newest(path) == 2
