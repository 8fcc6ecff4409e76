"""What a projection will take, beside what it took."""

import shutil

import pytest

from pipeline.bases import stored_basis
from pipeline.index import manifest as manifest_lib
from pipeline.storage import checked_files


@pytest.fixture(name='estimate')
def fixture_estimate(influence, task_flags, tmp_path):
  def run(*arguments):
    return influence(
      *('estimate', *task_flags, '--range_size', 40, '--index', tmp_path / 'i'),
      *arguments,
    )

  return run


def test_bytes_are_those_of_the_index(estimate, basis, index):
  found = estimate('--basis', basis, '--num_workers', 1, 5, '--json').json
  first, second, *_ = found['estimates']
  assert first['num_examples'] == second['num_examples'] == 303
  assert (first['num_workers'], second['num_workers']) == (1, 5)
  assert first['wall_hours'] >= second['wall_hours'] > 0
  shards = manifest_lib.load(str(index)).shards
  expected = sum(x.rows.num_bytes + x.vectors.num_bytes for x in shards)
  # The last range of each file is half as long, with footers as large.
  assert first['index_bytes'] == pytest.approx(expected, rel=0.2)
  sizes = [x['num_examples'] for x in found['estimates']]
  assert sizes[2::2] == [10_000_000, 100_000_000]


def test_costs_by_a_table_of_ones_own(influence, estimate, tmp_path):
  printed = influence('estimate', '--print_prices').stdout
  path = tmp_path / 'prices.toml'
  path.write_text(printed.replace('worker_hour = 0.0', 'worker_hour = 3.0'))
  found = estimate('--prices', path, '--coordinates_per_layer', 4, '--json')
  for row in found.json['estimates']:
    assert row['cost'] == pytest.approx(3 * row['worker_hours'])
  assert 'cost, USD' in estimate('--prices', path).stdout


def test_what_was_estimated_and_what_it_took(
  influence, estimate, task_flags, basis, tmp_path
):
  index = ('--index', tmp_path / 'i')
  assert 'no run is recorded' in influence('runs', *index).error_line
  assert estimate('--basis', basis).status == 0
  project = ('project', *task_flags, '--basis', basis, *index)
  assert influence(*project, '--range_size', 40).status == 0
  found = influence('runs', *index, '--json').json['runs']
  assert [row['kind'] for row in found] == ['estimate', 'project']
  assert [row['num_examples'] for row in found] == [303, 303]
  assert found[1]['details'] == {'engine': 'local', 'generation': 1}
  shown = influence('runs', *index).stdout
  assert 'of the estimate' in shown
  # Nothing was to do, and nothing is recorded; nor is it missed.
  assert 'nothing to do' in influence(*project, '--range_size', 40).stdout
  assert len(influence('runs', *index, '--json').json['runs']) == 2
  assert influence('verify', *index).status == 0
  assert influence('gc', *index, '--grace_hours', 0).status == 0
  assert len(influence('runs', *index, '--json').json['runs']) == 2


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--num_ranges', 0], 'num_ranges is 0'),
    (['--num_workers', 0], 'num_workers is 0'),
    (['--prices', 'absent.toml'], '--print_prices prints a table'),
    (['--basis', 'absent'], 'absent'),
  ],
)
def test_mistakes_are_told_in_one_line(estimate, arguments, message):
  assert message in estimate(*arguments).error_line


def test_an_index_knows_its_task_and_basis(influence, basis, index, tmp_path):
  copy = shutil.copytree(index, tmp_path / 'copy')
  few = ['--range_size', 40, '--json']
  found = influence('estimate', '--index', copy, *few).json
  assert found['task'] == 'linear'
  expected = stored_basis.load_record(str(basis)).projection_dim
  assert found['workload']['index_bytes'] > 4 * expected
  assert (
    influence('runs', '--index', copy, '--json').json['runs'][-1]['kind']
    == 'estimate'
  )
  line = influence('estimate', *few).error_line
  assert 'give --task, or --index of an index' in line


def test_record_of_something_else_is_one_line(influence, tmp_path):
  path = tmp_path / 'runs' / '20261130T000000-project.json'
  path.parent.mkdir()
  path.write_bytes(checked_files.encode_json({'kind': 'other'}))
  line = influence('runs', '--index', tmp_path).error_line
  assert '20261130T000000-project.json' in line
  assert 'kind is' in line
