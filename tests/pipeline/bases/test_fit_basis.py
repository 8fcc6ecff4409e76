import dataclasses
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from influence_core import errors
from pipeline.bases import stored_basis, task_basis
from pipeline.storage import disk_room, files as storage
from pipeline.tasks import loaded_task
from pipeline.tasks.reference import TaskReference
from tests.kit import linear_task
from tests.kit.basis_fits import (
  KilledError,
  config,
  eigenvectors,
  fit,
  kill_after,
  load,
)


@pytest.fixture(name='workdir', scope='module')
def fixture_workdir(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('linear')
  linear_task.prepare(workdir)
  return workdir


@pytest.fixture(name='loaded', scope='module')
def fixture_loaded(workdir):
  return load(workdir)


@pytest.mark.slow
@pytest.mark.parametrize('placement', ['host', 'device', 'disk'])
@pytest.mark.parametrize('num_steps', [1, 4])
def test_continues_at_the_last_vector(loaded, tmp_path, placement, num_steps):
  options = {'placement': placement, 'tolerance': 0.2}  # Which is reached.
  whole, _ = fit(loaded, tmp_path / 'whole', **options)
  path = tmp_path / 'killed'
  with pytest.raises(KilledError):
    fit(loaded, path, progress=kill_after(num_steps), **options)
  steps = []
  record, told = fit(
    loaded, path, progress=lambda done, total: steps.append(done), **options
  )
  assert steps == list(range(num_steps + 1, 6))
  assert f'continuing after {num_steps} products' in ' '.join(told)
  assert record.eigenvalues == whole.eigenvalues
  np.testing.assert_array_equal(eigenvectors(record), eigenvectors(whole))
  assert record.fingerprint == whole.fingerprint
  assert record.report.trace == whole.report.trace
  # Nothing but the basis stays.
  assert sorted(os.listdir(path)) == sorted(
    ['basis.json', record.parts[0].name.split('/')[0]]
  )


@pytest.mark.slow
def test_restarts_are_continued_too(loaded, tmp_path):
  options = {'projection_dim': 1, 'num_iterations': 9, 'max_vectors': 4}
  whole, _ = fit(loaded, tmp_path / 'whole', **options)
  path = tmp_path / 'killed'
  for num_steps in (3, 4, 7):  # Before, at and after a restart.
    with pytest.raises(KilledError):
      fit(loaded, path, progress=kill_after(num_steps), **options)
    vectors = [
      name
      for name in os.listdir(path / 'krylov/first/process-000')
      if name.startswith('vector')
    ]
    assert len(vectors) <= 7  # Those of two states.
  record, _ = fit(loaded, path, **options)
  assert record.fingerprint == whole.fingerprint
  assert record.report.trace == whole.report.trace


@pytest.mark.slow
def test_placements_and_microbatches_agree(loaded, tmp_path):
  records = [
    fit(loaded, tmp_path / f'{placement}-{size}', placement=placement,
        microbatch_size=size)[0]
    for placement in ('host', 'device', 'disk')
    for size in (None, 7)
  ]  # fmt: skip
  for record in records[1:]:
    # float32 sums in another order.
    np.testing.assert_allclose(
      record.eigenvalues, records[0].eigenvalues, rtol=1e-5
    )
    similarity = eigenvectors(record) @ eigenvectors(records[0]).T
    np.testing.assert_allclose(abs(np.diag(similarity)), 1, atol=1e-5)
    assert record.mean_curvature == pytest.approx(
      records[0].mean_curvature, rel=1e-5
    )


def test_mean_curvature_is_that_of_the_closed_form(loaded, tmp_path):
  """Within its standard error, which the report states."""
  record, _ = fit(
    loaded, tmp_path, projection_dim=1, sample_size=303, num_trace_probes=24
  )
  hessian, _, _ = linear_task.closed_form()
  report = record.report
  error = report.trace.standard_error
  # Of 24 probes, four standard errors are left with a probability of 6e-4.
  assert abs(report.trace.trace - np.trace(hessian)) < 4 * error
  assert 0 < error < 0.2 * np.trace(hessian)
  assert record.mean_curvature == report.trace.trace / len(hessian)
  assert report.num_products == report.num_iterations + 24
  assert stored_basis.load_record(str(tmp_path)) == record


@pytest.mark.slow
def test_several_devices_estimate_the_same(
  influence_process, workdir, tmp_path
):
  task = ['--task', 'tests.kit.linear_task:make_task']
  task += ['--task_arg', f'workdir={workdir}']
  found = []
  for devices in (1, 3):
    out = tmp_path / str(devices)
    made = influence_process(
      *('fit-basis', *task, '--out', out, '--projection_dim', 2),
      *('--num_iterations', 4),
      devices=devices,
    )
    assert made.status == 0, made.stderr
    trace = stored_basis.load_record(str(out)).report.trace
    found.append([trace.mean_curvature, trace.standard_error])
  # float32 sums in another order, and pairs that have not converged.
  np.testing.assert_allclose(found[1], found[0], rtol=1e-4)


def test_no_mean_curvature_without_probes(loaded, tmp_path):
  record, _ = fit(loaded, tmp_path, num_trace_probes=0)
  assert record.mean_curvature is None
  assert record.report.num_products == record.report.num_iterations == 5


def test_bfloat16_krylov_vectors_and_basis(loaded, tmp_path):
  exact, _ = fit(loaded, tmp_path / 'float32', num_iterations=6)
  record, _ = fit(
    loaded, tmp_path / 'bfloat16', krylov_dtype='bfloat16',
    basis_dtype='bfloat16', num_iterations=6, placement='disk',
  )  # fmt: skip
  found = stored_basis.load(record).eigenvectors['weights']
  assert found.dtype.name == 'bfloat16'
  # bfloat16 keeps 8 bits.
  np.testing.assert_allclose(record.eigenvalues, exact.eigenvalues, rtol=1e-2)
  similarity = eigenvectors(record).astype(float) @ eigenvectors(exact).T
  np.testing.assert_allclose(abs(np.diag(similarity)), 1, atol=2e-2)


def test_auto_stops_when_all_pairs_have_converged(loaded, tmp_path):
  record, _ = fit(
    loaded, tmp_path, projection_dim=2, num_iterations=None, tolerance=1e-2
  )
  assert max(record.report.residuals) <= 1e-2
  assert record.report.num_iterations < 6
  assert record.report.objections == []


def test_sample_is_compared_with_others(loaded, tmp_path):
  record, told = fit(loaded, tmp_path, check_sample=True)
  report = stored_basis.load_record(str(tmp_path)).report
  assert report == record.report
  assert len(report.second_sample.cosines) == 3
  # Doubling a sample leaves half of it, another one nothing.
  assert 0.9 < report.second_sample.overlap <= report.doubled_sample.overlap
  assert [text.split(':')[0] for text in told] == [
    'first', 'second_sample', 'doubled_sample',
  ]  # fmt: skip


def test_too_small_corpus_for_two_samples(loaded, tmp_path):
  with pytest.raises(errors.InputError, match='too few for two samples of 200'):
    fit(loaded, tmp_path, check_sample=True, sample_size=200)
  assert not (tmp_path / 'krylov').exists()  # Before any product.


@pytest.mark.slow
def test_other_curvature(workdir, tmp_path):
  loaded = load(workdir)
  # A square loss of a linear model: Gauss-Newton is the Hessian.
  hessian, _ = fit(loaded, tmp_path / 'hessian')
  found, _ = fit(loaded, tmp_path / 'found', curvature='gauss_newton')
  np.testing.assert_allclose(found.eigenvalues, hessian.eigenvalues, rtol=1e-5)
  other, _ = fit(loaded, tmp_path / 'other', curvature='empirical_fisher')
  assert not np.allclose(other.eigenvalues, hessian.eigenvalues, rtol=0.01)


def test_selection_is_part_of_the_basis(workdir, tmp_path):
  reference = TaskReference(
    'tests.kit.linear_task:make_task', {'workdir': str(workdir)}
  ).selecting(['!bias'])
  loaded = loaded_task.LoadedTask.load(reference)
  with pytest.raises(KilledError):
    fit(loaded, tmp_path, progress=kill_after(2))
  record, _ = fit(loaded, tmp_path)
  assert task_basis.find(str(tmp_path), config(), loaded) is not None
  assert list(stored_basis.load(record).eigenvectors) == ['weights']
  assert record.config['parameter_paths'] == ('!bias',)


def test_another_iteration_in_the_work_directory(loaded, tmp_path):
  with pytest.raises(KilledError):
    fit(loaded, tmp_path, progress=kill_after(2))
  with pytest.raises(
    errors.InputError, match='holds an iteration with seed 0, not 1'
  ):
    fit(loaded, tmp_path, seed=1)


@pytest.mark.parametrize('placement', ['host', 'disk'])
@pytest.mark.parametrize('damage', ['truncated', 'altered', 'missing'])
def test_damaged_vector_is_named(loaded, tmp_path, placement, damage):
  with pytest.raises(KilledError):
    fit(loaded, tmp_path, placement=placement, progress=kill_after(3))
  path = tmp_path / 'krylov/first/process-000/vector-00001.bin'
  data = bytearray(path.read_bytes())
  data[3] ^= 1
  match damage:
    case 'truncated':
      path.write_bytes(data[:-1])
    case 'altered':
      path.write_bytes(data)
    case 'missing':
      path.unlink()
  with pytest.raises(storage.DamagedFileError, match=r'vector-00001\.bin'):
    fit(loaded, tmp_path, placement=placement)


def test_disk_that_does_not_suffice(loaded, tmp_path, monkeypatch):
  monkeypatch.setattr(disk_room, 'free_bytes', lambda directory: 10)
  with pytest.raises(errors.InputError, match='bytes of disk are needed'):
    fit(loaded, tmp_path)
  assert not (tmp_path / 'krylov').exists()


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    ({'num_iterations': 2}, 'num_iterations is 2, expected at least'),
    ({'max_vectors': 5}, 'max_vectors is 5, expected at least'),
    ({'num_trace_probes': 1}, 'num_trace_probes is 1'),
    ({'tolerance': 0.0}, 'tolerance is 0.0'),
    ({'sample_size': 0}, 'sample_size is 0'),
  ],
)
def test_bad_config(values, message):
  with pytest.raises(errors.InputError, match=message):
    config(**values)


@pytest.mark.slow
def test_killed_process_continues_with_the_same_basis(workdir, tmp_path):
  command = [
    sys.executable, '-m', 'launch', 'fit-basis',
    '--task', 'tests.kit.linear_task:make_task',
    '--task_arg', f'workdir={workdir}', '--out', str(tmp_path / 'killed'),
    '--projection_dim', '2', '--num_iterations', '400',
    '--max_vectors', '5', '--sample_size', '100',
  ]  # fmt: skip
  directory = tmp_path / 'killed/krylov/first/process-000'
  with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
    deadline = time.monotonic() + 120
    while not list(directory.glob('state-0000[3-9]?.json')):
      assert process.poll() is None, 'finished before it was killed'
      assert time.monotonic() < deadline
      time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
  done = subprocess.run(command, capture_output=True, text=True, check=True)
  assert 'continuing after' in done.stderr
  loaded = load(workdir)
  whole, _ = fit(
    loaded, tmp_path / 'whole', projection_dim=2, num_iterations=400,
    max_vectors=5,
  )  # fmt: skip
  record = stored_basis.load_record(str(tmp_path / 'killed'))
  assert record.fingerprint == whole.fingerprint
  assert dataclasses.asdict(record.report)['num_iterations'] == 400
