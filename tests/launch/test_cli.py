"""Every bad input is one clear line and a non-zero status, before any work."""

from importlib import metadata
import json
import os
import shutil
import subprocess
import sys

import jax
import pytest

from launch.flags import parser as flags
from launch.output import error_lines
from pipeline import open_index
from pipeline.bases import stored_basis
from pipeline.index import manifest as manifest_lib
from tests.conftest import ROOT

COMMANDS = list(flags.build_parser()[1])


def fault(task_flags, name):
  return [*task_flags, '--task_arg', f'fault={name}']


@pytest.mark.parametrize('command', COMMANDS)
def test_help_teaches_with_an_example(influence, command):
  shown = influence(*command.split(), '--help')
  assert shown.status == 0
  assert f'example:\n  influence {command} ' in shown.stdout
  unknown = influence(*command.split(), '--jsom')
  assert unknown.status == 2


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['prject'], "invalid choice: 'prject'"),
    (['verify', '--index', 'x', '--where', 'y'], 'unknown argument --where;'),
    (['reindex', '--config', 'nope.toml'], 'no configuration at nope.toml'),
    (['verify', '--index', 'x', '--jsn'], 'did you mean --json?'),
    (['verify', '--index=x', '--', '--runner=y'], 'takes nothing after --'),
    (['verify'], 'required: --index'),
    (['verify', '--index', 'absent'], 'no index at '),
    (['describe', '--basis', 'absent'], 'no basis at '),
    (['describe', '--basis', 'a', '--index', 'b'], 'not allowed with'),
    (['self-influence', '--index', 'i', '--k', 'many'], 'invalid int value'),
    (['self-influence', '--index', 'i', '--damping', '-1'], 'damping is -1.0'),
    (['train-example', 'mnist_cnn', '--workdir', 'w'], 'needs --data_dir'),
    (
      ['train-example', 'mnist_cnn', '--workdir', 'w', '--data_dir', 'd'],
      'tfds build mnist --data_dir=',
    ),
    (
      ['train-example', 'digits_cnn', '--workdir', 'w', '--flip_labels', '2'],
      'flip_labels is 2.0',
    ),
  ],
)
def test_bad_arguments(influence, tmp_path, monkeypatch, arguments, message):
  monkeypatch.chdir(tmp_path)
  assert message in influence(*arguments).error_line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--task', 'nonsense'], 'expected module:function'),
    (['--task', 'no_such_module:f'], "cannot import 'no_such_module'"),
    (['--task', 'tests.kit.linear_task:nothing'], 'it defines closed_form, '),
    (['--task', 'tests.kit.linear_task:not_a_task'], 'returned int, expected'),
    (['--task', 'tests.kit.linear_task:make_task'], '--task_arg workdir=VALUE'),
    (
      ['--task', 'tests.kit.linear_task:make_task', '--task_arg', 'x=1'],
      "takes no argument 'x'; it takes workdir, fault, l2_weight",
    ),
    (
      [
        '--task',
        'tests.kit.linear_task:make_task',
        '--task_arg',
        'l2_weight=a',
      ],
      "l2_weight is 'a', expected float",
    ),
    (
      ['--task', 'tests.kit.linear_task:make_task', '--task_arg', 'x'],
      "'x', expected NAME=VALUE",
    ),
  ],
)
def test_bad_task(influence, tmp_path, flags, message):
  found = influence('fit-basis', *flags, '--out', tmp_path / 'b')
  assert message in found.error_line
  assert not (tmp_path / 'b').exists()


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('scalar_loss', 'returned shape (), expected (4,)'),
    ('nan_loss', 'expected a finite number'),
    ('integer_loss', 'expected a floating-point type'),
    ('failing_loss', "per_example_loss failed on a few examples (KeyError: 'a"),
    ('failing_loss', 'tests/kit/linear_task.py:'),
    ('fixed_batch', 'fails on a batch of one example'),
    ('mixed_batch', 'must not mix the examples of a batch'),
    ('no_dataset', 'no prepared dataset absent in data_dir'),
    ('no_checkpoint', 'no checkpoint at '),
    ('foreign_checkpoint', 'weights is (5,), expected (6,)'),
  ],
)
def test_faulty_task(influence, tmp_path, task_flags, name, message):
  found = influence(
    'fit-basis', *fault(task_flags, name), '--out', tmp_path / 'b'
  )
  assert message in found.error_line
  assert not (tmp_path / 'b').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--projection_dim', '0'], 'projection_dim is 0'),
    (['--num_iterations', '9'], 'num_iterations is 9, expected at least'),
    (['--sample_size', '-1'], 'sample_size is -1'),
    (['--out', '/proc/basis'], 'cannot write to /proc/basis'),
  ],
)
def test_bad_fit(influence, tmp_path, task_flags, flags, message):
  out = [] if '--out' in flags else ['--out', tmp_path / 'b']
  found = influence('fit-basis', *task_flags, *out, *flags)
  assert message in found.error_line


def test_version(influence):
  shown = influence('--version')
  assert shown.status == 0
  assert shown.stdout == f'influence {metadata.version("influence-pipeline")}\n'


def test_missing_configuration_is_no_damage(influence):
  assert influence('reindex', '--config', 'nope.toml').status == 1


def test_what_a_notebook_shows_is_short(basis, index):
  record = stored_basis.load_record(str(basis))
  for thing in (record, stored_basis.load(record), open_index(str(index))):
    assert len(repr(thing)) < 300
    assert repr(thing).startswith('<')


def test_doctor(influence, task_flags, basis):
  told = influence('doctor', *task_flags, '--basis', basis, '--json').json
  assert told['num_parameters'] == 6
  assert told['projection_dim'] == 6
  assert told['basis_bytes'] == 6 * told['parameter_bytes'] == 6 * 6 * 4
  assert told['peak_bytes'] <= told['memory_budget_bytes']
  assert told['projection_error'] < 1e-5
  assert told['examples_per_second'] > 0
  assert [row['path'] for row in told['parameters']] == ['bias', 'weights']
  random = influence(
    'doctor', *task_flags, '--projection_dim', 4, '--json'
  ).json
  assert random['projection_dim'] == 4
  layers = influence(
    'doctor', *task_flags, '--coordinates_per_layer', 4, '--json'
  ).json
  assert layers['projection_dim'] == 4
  assert [row['gradient'] for row in layers['parameters']] == [
    'with weights',
    '4 x 1 coordinates',
  ]
  # A single layer of 6 entries takes no more than these.
  assert {row['coordinates'] for row in layers['budgets']} == {6}
  printed = influence('doctor', *task_flags, '--projection_dim', 3).stdout
  assert 'layer applied to the basis' in printed


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--projection_dim', '0'], 'projection_dim is 0'),
    (['--projection_dim', '7'], 'pass --projection_dim 6 or less'),
    (['--num_examples', '0'], 'num_examples is 0'),
    (['--batch_size', '-1'], 'batch_size is -1'),
    (['--memory_budget', '12X'], "'12X' is no size; expected a number with K"),
    (['--memory_budget', '30'], 'the memory budget is 30 bytes'),
    (['--basis_dtype', 'float16'], "invalid choice: 'float16'"),
    (['--basis', 'absent'], 'no basis at '),
  ],
)
def test_bad_doctor(influence, task_flags, flags, message):
  command = ['doctor', *task_flags, '--projection_dim', 6]
  assert message in influence(*command, *flags).error_line


@pytest.mark.parametrize(
  ('name', 'field'),
  [
    ('other_paths', 'selected paths'),
    ('other_reduction', 'loss reduction'),
    ('other_preprocessing', 'preprocessing'),
  ],
)
def test_basis_and_index_of_another_model_are_refused(
  influence, tmp_path, task_flags, basis, index, name, field
):
  task = fault(task_flags, name)
  expected = f'was made with other {field}'
  made = influence(
    'project', *task, '--basis', basis, '--index', tmp_path / 'i'
  )
  assert expected in made.error_line
  assert not (tmp_path / 'i').exists()
  found = influence('topk', *task, '--index', index, '--query_split', 'test')
  assert expected in found.error_line


def test_index_of_another_basis_is_refused(
  influence, tmp_path, task_flags, index
):
  small = ['--projection_dim', 6, '--num_iterations', 6, '--seed', 5]
  influence('fit-basis', *task_flags, '--out', tmp_path / 'b', *small)
  query = ['topk', *task_flags, '--index', index, '--query_split', 'test']
  found = influence(*query, '--basis', tmp_path / 'b')
  assert 'was made with other basis' in found.error_line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--projection_dim', '7'], 'projection_dim is 7, expected 1 to 6'),
    (['--query_split', 'validation'], "has no split 'validation'; it has test"),
    (['--query_split', 'test[:0]'], 'holds no example'),
    (['--k', '0'], 'k is 0'),
    (['--batch_size', '0'], 'batch_size is 0'),
    (['--out', '/proc/x/top.parquet'], 'cannot write to /proc/x'),
  ],
)
def test_bad_query(influence, task_flags, index, flags, message):
  found = influence(
    'topk',
    *task_flags,
    *('--index', index, '--query_split', 'test[:2]'),
    *flags,
  )
  assert message in found.error_line


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--range_size', '0'], 'range_size is 0'),
    (['--num_workers', '0'], 'num_workers is 0'),
    (['--batch_size', '-3'], 'batch_size is -3'),
    (['--max_rejected_fraction', '2'], 'max_rejected_fraction is 2.0'),
    (['--basis', 'absent'], 'no basis at '),
    (['--index', '/proc/index'], 'cannot write to /proc/index'),
    (['--', '--runer=x'], '--runer is no Beam option; did you mean --runner?'),
    (['--', '--runner=NoSuchRunner'], 'NoSuchRunner'),
    (['--', '--direct_num_workers=abc'], "invalid int value: 'abc'"),
    (['--', '--direct_num_workers=-1'], 'is -1, expected at least 0'),
    (['--', '--direct_num_workers'], 'expected one argument'),
    (['--', '--runner'], 'expected one argument'),
    (['--', '--streaming=maybe'], "ignored explicit argument 'maybe'"),
    (['--', 'FnApiRunner'], "'FnApiRunner' after -- is no Beam option; write"),
    (['--', '--runner=DataflowRunner'], 'Missing required option: project.'),
  ],
)
def test_bad_projection(influence, task_flags, basis, tmp_path, flags, message):
  usual = ['--basis', basis, '--index', tmp_path / 'i']
  found = influence('project', *task_flags, *usual, *flags)
  assert message in found.error_line
  assert not (tmp_path / 'i' / 'shards').exists()


@pytest.mark.parametrize(
  ('victim', 'command'),
  [
    ('manifest', 'verify'),
    ('manifest', 'self-influence'),
    ('manifest', 'project'),
    ('rows', 'verify'),
    ('vectors', 'verify'),
    ('vectors', 'self-influence'),
    ('rows', 'topk'),
  ],
)
def test_flipped_bit_is_found_and_named(
  influence, task_flags, basis, index, tmp_path, victim, command
):
  copy = tmp_path / 'i'
  shutil.copytree(index, copy)
  shard = manifest_lib.load(str(index)).shards[2]
  path = {
    'manifest': copy / 'manifest-000001.json',
    'rows': copy / 'shards' / shard.rows.name,
    'vectors': copy / 'shards' / shard.vectors.name,
  }[victim]
  data = bytearray(path.read_bytes())
  data[len(data) // 2] ^= 4
  path.write_bytes(data)
  flags = {
    'project': [*task_flags, '--basis', basis, '--range_size', 40],
    'topk': [*task_flags, '--query_split', 'test[:1]'],
  }.get(command, [])
  assert path.name in influence(command, *flags, '--index', copy).error_line


@pytest.mark.slow
def test_later_commands_follow_the_selection_of_the_basis(
  influence, task_flags, tmp_path
):
  basis, index = tmp_path / 'b', tmp_path / 'i'
  made = influence(
    'fit-basis', *task_flags, '--out', basis, '--parameter_paths', '!bias',
    '--projection_dim', 5, '--num_iterations', 'auto', '--num_trace_probes', 2,
  )  # fmt: skip
  assert '5 of 6 parameters in 1 arrays' in made.stdout
  assert 'GO: every pair is an eigenpair' in made.stdout
  place = ['--basis', basis]
  influence('project', *task_flags, *place, '--index', index)
  query = ['--index', index, '--query_split', 'test']
  assert 'proponent' in influence('topk', *task_flags, *query).stdout
  told = influence('doctor', *task_flags, *place).stdout
  assert 'weights' in told
  assert 'bias ' not in told


def test_gauss_newton_without_a_split_loss(influence, task_flags, tmp_path):
  found = influence(
    'fit-basis', *fault(task_flags, 'no_split_loss'), '--out', tmp_path / 'b',
    '--curvature', 'gauss_newton', '--projection_dim', 6,
  )  # fmt: skip
  assert 'give the task a split_loss' in found.error_line


def test_unreliable_pairs_are_no_go(influence, task_flags, tmp_path):
  told = influence(
    'fit-basis', *task_flags, '--out', tmp_path / 'b', '--projection_dim', 2,
    '--num_iterations', 2,
  ).stdout  # fmt: skip
  assert 'NO-GO: ' in told
  assert 'use more iterations or fewer pairs' in told


def test_damaged_basis_is_found(influence, task_flags, basis, tmp_path):
  copy = tmp_path / 'b'
  shutil.copytree(basis, copy)
  (copy / 'basis.json').write_text('{"content": {}}')
  found = influence('describe', '--basis', copy)
  assert 'basis.json is no complete JSON' in found.error_line
  shutil.copy(basis / 'basis.json', copy)
  [eigenvectors] = copy.glob('eigenvectors-*/part-00000')
  shutil.rmtree(eigenvectors)
  made = influence(
    'project', *task_flags, '--basis', copy, '--index', tmp_path / 'i'
  )
  assert 'no checkpoint at ' in made.error_line
  assert manifest_lib.generations(str(tmp_path / 'i')) == []


def test_json_is_all_there_is_on_stdout(influence, task_flags, index):
  found = influence('describe', '--index', index, '--json')
  assert json.loads(found.stdout)['generation'] == 1
  assert found.stdout.count('\n') == 1


def test_json_is_kept_apart_from_what_a_task_prints(influence, workdir, basis):
  task = ['--task', 'tests.kit.odd_tasks:that_prints']
  task += ['--task_arg', f'workdir={workdir}', '--basis', basis]
  found = influence('doctor', *task, '--json')
  assert json.loads(found.stdout)['projection_dim'] == 6
  assert 'made a task' in found.stderr
  assert 'made a task' in influence('doctor', *task).stdout


@pytest.mark.parametrize(
  ('error', 'message'),
  [
    (MemoryError('Unable to allocate 3 TiB'), 'memory does not suffice (Unabl'),
    (MemoryError(), 'memory does not suffice ()'),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
      'a device program failed (RESOURCE_EXHAUSTED: Out of memory)',
    ),
    (
      jax.errors.JaxRuntimeError(
        'INTERNAL: CpuCallback error: Traceback (most recent call last):\n'
        '  File "x.py", line 3, in f\nValueError: not that one\n'
      ),
      'a device program failed (ValueError: not that one)',
    ),
  ],
)
def test_failures_of_the_machine_are_one_line(error, message):
  assert error_lines.expected_error(error).text.startswith(message)


def test_help_imports_nothing_that_takes_long():
  """Of any command: an answer at once."""
  lines = [command.split() + ['--help'] for command in COMMANDS] + [['--help']]
  program = (
    'import contextlib, io, sys\n'
    'from launch import cli\n'
    f'for line in {lines!r}:\n'
    '  with contextlib.redirect_stdout(io.StringIO()):\n'
    '    try:\n'
    '      cli.main(line)\n'
    '    except SystemExit as stop:\n'
    '      assert not stop.code, line\n'
    "heavy = {'jax', 'numpy', 'pyarrow', 'apache_beam', 'tensorflow_datasets'"
    '}\n'
    'assert not heavy & set(sys.modules), heavy & set(sys.modules)\n'
  )
  done = subprocess.run(
    [sys.executable, '-c', program], cwd=ROOT, capture_output=True, check=True
  )
  assert done.stderr == b''


@pytest.mark.slow
def test_module_is_the_same_program(influence_process):
  shown = influence_process('--help')
  assert shown.status == 0
  for command in COMMANDS:
    assert command.split()[0] in shown.stdout
  assert influence_process('verify', '--index', os.devnull).status == 1
