"""Subspaces of layers from the command line, against closed forms."""

import functools
import itertools

import numpy as np
import pytest

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from pipeline import QuerySession, open_index
from pipeline.bases import (
  fit_kronecker_basis,
  kept_passes,
  kronecker_config,
  sample_blocks,
  stored_basis,
)
from pipeline.tasks import checkpoints
from tests.kit import basis_fits, linear_task

COUNT = 4


@pytest.fixture(name='loaded')
def fixture_loaded(workdir):
  return basis_fits.load(workdir)


@pytest.fixture(name='make')
def fixture_make(influence, task_flags, tmp_path):
  """Fits and projects; gives the path of the index."""

  def run(name, *flags, project=()):
    basis, index = tmp_path / f'{name}-basis', tmp_path / name
    fitted = influence(
      *('fit-basis', *task_flags, '--out', basis, '--method', 'kronecker'),
      *flags,
    )
    assert fitted.status == 0, fitted.stderr
    where = ('--basis', basis, '--index', index, *project)
    done = influence('project', *task_flags, *where)
    assert done.status == 0, done.stderr
    return str(index)

  return run


def scores(index, damping):
  session = QuerySession(index)
  queries = session.project(f'test[:{COUNT}]')
  return session.scores(queries, ScoreOptions(damping=damping))


def closed_form(workdir, index, damping):
  """[COUNT, num_train] influence, examples in the order of the index."""
  params = checkpoints.load_arrays(str(workdir / 'checkpoint'))
  corpus = QuerySession(index).loaded.task.corpus

  def gradients(split):
    raw = corpus.with_split(split)
    examples = [x for _, x in raw.read_positions(range(raw.num_examples))]
    x = np.stack([np.concatenate([[1], one['x']]) for one in examples])
    y = np.array([one['y'] for one in examples])
    theta = np.concatenate([[params['bias']], params['weights']])
    return x * (x @ theta - y)[:, None]

  hessian, _, _ = linear_task.closed_form()
  damped = hessian + damping * np.eye(len(hessian))
  return gradients(f'test[:{COUNT}]') @ np.linalg.solve(
    damped, gradients('train').T
  )


def test_coordinates_are_no_more_than_gradients(make):
  index = open_index(make('index', '--sample_size', 3))
  [layer] = index.manifest.provenance.layers
  assert layer.count == 3


def test_the_inverse_hessian_with_its_bias(make, workdir):
  """One layer: the quadratic loss has its whole curvature inside."""
  index = make('index')
  [layer] = open_index(index).manifest.provenance.layers
  assert (layer.name, layer.count) == ('weights', 6)
  hessian, _, _ = linear_task.closed_form()
  mean = np.trace(hessian) / len(hessian)
  assert layer.mean_curvature == pytest.approx(mean, rel=1e-5)
  for damping, added in ((0.0, 0.0), (0.5, 0.5), ('0.2x', 0.2 * mean)):
    found, _ = scores(index, damping)
    expected = closed_form(workdir, index, added)
    # float32 gradients, moments and products.
    np.testing.assert_allclose(
      found, expected, atol=1e-4 * np.abs(expected).max()
    )
  default, _ = scores(index, None)
  np.testing.assert_array_equal(default, scores(index, '0.1x')[0])


def test_shards_precision_and_certificates(make, influence, task_flags):
  exact = make('exact')
  some = make('some', project=('--range_size', 17))
  expected, ids = scores(exact, None)
  found, other_ids = scores(some, None)
  assert ids == other_ids
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
  small = make('small', project=('--vector_dtype', 'int8'))
  topk = ['topk', *task_flags, '--query_split', 'test[:3]', '--k', 5, '--json']
  rows = [
    influence(*topk, '--index', index, *more).json['results']
    for index, more in ((exact, ()), (small, ('--certify',)))
  ]
  for one, other in zip(*rows, strict=True):
    assert one['id'] == other['id']
    assert one['score'] == pytest.approx(other['score'], rel=1e-5)


def test_queries_by_layer(make, influence, task_flags, tmp_path):
  """A single layer has the whole score."""
  index = make('index')
  topk = ['topk', *task_flags, '--index', index, '--query_split', 'test[:2]']
  found = influence(*topk, '--by_layer', '--layers', 'weights', '--json').json
  for row in (*found['results'], *found['self_influence']):
    # float32 sums, of self-influence.
    assert row['by_layer'] == {'weights': pytest.approx(row['score'], rel=1e-5)}
  everything = influence(*topk, '--json').json
  assert [x['id'] for x in found['results']] == [
    x['id'] for x in everything['results']
  ]
  wrong = influence(*topk, '--layers', 'bias')
  assert "layers is 'bias', which matches none" in wrong.error_line
  assert wrong.error_line.endswith(': weights')


def test_fewer_coordinates_hold_less(make, influence, task_flags, tmp_path):
  """Four of the six entries of [weights, bias], as there is one column."""
  make('few', '--coordinates_per_layer', 4)
  record = stored_basis.load_record(str(tmp_path / 'few-basis'))
  [layer] = record.report.layers
  assert layer.count == 4
  assert 0.5 < layer.captured < 1
  shown = influence('describe', '--basis', tmp_path / 'few-basis')
  assert 'GO: the curvature inside' in shown.stdout
  again = influence(
    *('fit-basis', *task_flags, '--out', tmp_path / 'few-basis'),
    *('--method', 'kronecker', '--coordinates_per_layer', 5),
  )
  assert 'has coordinates_per_layer 4, not 5' in again.error_line


def test_whitened_directions_hold_less_of_the_curvature(make, tmp_path):
  held = {}
  for name in ('leading', 'whitened'):
    make(name, '--coordinates_per_layer', 4, '--directions', name)
    record = stored_basis.load_record(str(tmp_path / f'{name}-basis'))
    [layer] = record.report.layers
    assert layer.count == 4
    held[name] = layer.captured
  assert 0 < held['whitened'] < held['leading']


def test_the_method_follows_from_the_options(influence, task_flags, tmp_path):
  fit = ('fit-basis', *task_flags, '--out')
  first, again = (
    influence(*fit, tmp_path / 'plain', '--json').json for _ in range(2)
  )
  assert (first['fitted'], again['fitted']) == (True, False)
  assert first['selected'] == again['selected'] == {'bias': 1, 'weights': 5}
  assert stored_basis.load_record(str(tmp_path / 'plain')).report.layers
  influence(*fit, tmp_path / 'pairs', '--projection_dim', 3)
  assert stored_basis.load_record(str(tmp_path / 'pairs')).projection_dim == 3
  for flags, message in (
    (('--projection_dim', 3, '--num_draws', 2), 'num_draws is no option of'),
    (('--method', 'kronecker', '--tolerance', 1), 'tolerance is no option of'),
    (('--curvature', 'hessian'), 'has the Hessian by --inside hessian'),
  ):
    assert message in influence(*fit, tmp_path / 'x', *flags).error_line


def test_interrupted_passes_go_on(monkeypatch, loaded, tmp_path):
  """Wherever it stopped, bit for bit; the sample is read in five blocks."""
  monkeypatch.setattr(kept_passes, '_SECONDS_BETWEEN', 0)
  monkeypatch.setattr(sample_blocks, 'choose_size', lambda number: 13)
  config = kronecker_config.KroneckerConfig(sample_size=64)
  fit = functools.partial(
    fit_kronecker_basis.fit_kronecker_basis, loaded, config=config
  )
  whole = fit(str(tmp_path / 'whole'))
  path = str(tmp_path / 'stopped')
  seen = []

  def stop(at):
    def progress(num_done, num_total):
      seen.append((num_done, num_total))
      if num_done == at:
        raise KeyboardInterrupt

    return progress

  for at in (2, 4, 8):
    # What is told of a block is told before it is kept.
    with pytest.raises(KeyboardInterrupt):
      fit(path, progress=stop(at))
  done = fit(path, progress=stop(None))
  assert seen[-1] == (10, 10)
  runs = [0, 1, 2], [1, 2, 3, 4], [3, 4, 5, 5, 6, 7, 8], [5, 7, 8, 9, 10]
  assert [n for n, _ in seen] == [*itertools.chain.from_iterable(runs)]
  assert not (tmp_path / 'stopped' / 'passes').exists()
  one, other = map(stored_basis.load, (whole, done))
  np.testing.assert_array_equal(one.eigenvalues, other.eigenvalues)
  for (name, array), (_, same) in zip(
    one.arrays(), other.arrays(), strict=True
  ):
    np.testing.assert_array_equal(array, same, err_msg=name)


def test_blocks_of_large_models_are_small():
  """So that what is interrupted has not lost hours."""
  sizes = [10**5, 2 * 10**6, 124 * 10**6, 10**9, 70 * 10**9]
  found = [sample_blocks.choose_size(size) for size in sizes]
  assert found == [1024, 1024, 16, 8, 8]


def test_damaged_sums_are_named(monkeypatch, loaded, tmp_path):
  monkeypatch.setattr(kept_passes, '_SECONDS_BETWEEN', 0)

  def stop(num_done, num_total):
    if num_done == num_total:
      raise KeyboardInterrupt

  arguments = loaded, str(tmp_path / 'b'), kronecker_config.KroneckerConfig()
  with pytest.raises(KeyboardInterrupt):
    fit_kronecker_basis.fit_kronecker_basis(*arguments, progress=stop)
  [kept] = (tmp_path / 'b' / 'passes').glob('*/moments-*.npz')
  kept.write_bytes(kept.read_bytes()[:-100])
  with pytest.raises(errors.InputError, match=r'is damaged.*delete it'):
    fit_kronecker_basis.fit_kronecker_basis(*arguments)


@pytest.mark.slow
def test_several_devices_give_the_same(influence_process, task_flags, tmp_path):
  found = []
  for devices in (1, 3):
    basis, index = tmp_path / f'b{devices}', tmp_path / f'i{devices}'
    for command in (
      ['fit-basis', *task_flags, '--out', basis, '--method', 'kronecker'],
      ['project', *task_flags, '--basis', basis, '--index', index],
    ):
      done = influence_process(*command, devices=devices)
      assert done.status == 0, done.stderr
    found.append(scores(str(index), None)[0])
  # float32 sums in another order.
  np.testing.assert_allclose(
    found[1], found[0], atol=1e-5 * np.abs(found[0]).max()
  )
