"""What is said of a basis that ended in NO-GO, and that it can be mended."""

import shutil

import pytest

from launch.output import basis_notes, console as console_lib
from pipeline import open_index
from pipeline.bases import kept_vectors, stored_basis

FEW = ['--projection_dim', 2, '--num_iterations', 3]
AUTO = ['--projection_dim', 2, '--num_iterations', 'auto']
NOTE = 'ended in NO-GO: 1 of 2 pairs have a residual above 0.1: use more'


@pytest.fixture(name='fit', scope='module')
def fixture_fit(task_flags):
  return lambda path: ['fit-basis', *task_flags, '--out', path]


@pytest.fixture(name='bad')
def fixture_bad(influence, fit, task_flags, tmp_path):
  """A basis in NO-GO with an index."""
  basis, index = tmp_path / 'basis', tmp_path / 'index'
  made = influence(*fit(basis), *FEW)
  assert 'NO-GO: 1 of 2 pairs' in made.stdout
  assert f'vectors are kept, {num_bytes(basis):,} bytes at {basis}' in (
    made.stdout
  )
  project = ['project', *task_flags, '--basis', basis, '--index', index]
  done = influence(*project)
  assert done.stderr.count(f'{basis} {NOTE}') == 1
  return basis, index, project


def num_bytes(basis):
  return kept_vectors.num_bytes(str(basis / 'krylov'))


def test_is_said_once_by_what_uses_it(influence, bad, task_flags, tmp_path):
  basis, index, _ = bad
  queries = [*task_flags, '--index', index, '--query_split', 'test[:2]']
  for command in (
    ['topk', *queries, '--json'],
    ['self-influence', '--index', index],
    ['evaluate', 'detection', '--index', index, '--bad', 'half = 1'],
    ['evaluate', 'retrieval', *queries, '--relevant', 'half = query_half'],
    ['doctor', *task_flags, '--basis', basis],
  ):
    done = influence(*command)
    assert done.status == 0, done.stderr
    assert done.stderr.count(f'{basis} {NOTE}') == 1, command
    assert done.stderr.count('NO-GO') == 1, command
  shutil.move(basis, f'{basis}-elsewhere')
  done = influence('self-influence', '--index', index)
  assert done.status == 0
  assert 'NO-GO' not in done.stderr


def test_good_bases_and_those_without_a_verdict(
  influence, index, task_flags, tmp_path, capfd
):
  assert 'NO-GO' not in influence('self-influence', '--index', index).stderr
  made = ['random-basis', *task_flags, '--out', tmp_path, '--projection_dim', 4]
  assert influence(*made).status == 0
  record = stored_basis.load_record(str(tmp_path))
  basis_notes.tell(console_lib.Console(), record)
  assert capfd.readouterr().err == ''


def test_advice_can_be_followed(influence, fit, bad, task_flags):
  basis, index, project = bad
  again = influence(*fit(basis), *FEW)
  assert 'is fitted already with these options' in again.stdout
  assert 'vectors are kept' in again.stdout
  more = influence(*fit(basis), *AUTO)
  assert more.status == 0, more.stderr
  assert f'{basis} has num_iterations 3, not auto' in more.stderr
  assert 'continuing after 3 products kept at' in more.stderr
  assert 'NO-GO' not in more.stdout
  assert not (basis / 'krylov').exists()
  # The index is told to be of another basis, and made anew.
  query = ['topk', *task_flags, '--index', index, '--query_split', 'test[:2]']
  assert 'was made with other basis' in influence(*query).error_line
  assert 'NO-GO' not in influence('self-influence', '--index', index).stderr
  done = influence(*project)
  assert 'all is projected anew: ' in done.stdout
  assert 'NO-GO' not in done.stderr
  assert influence(*query).status == 0
  record = stored_basis.load_record(str(basis))
  provenance = open_index(str(index)).manifest.provenance
  assert provenance.fingerprints['basis'] == record.fingerprint
  # Done, and what it was made of is gone.
  assert 'is fitted already' in influence(*fit(basis), *AUTO).stdout
  assert 'no Krylov vectors are at' in influence(*fit(basis), *FEW).error_line
