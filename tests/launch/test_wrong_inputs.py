"""Every command with every kind of wrong input: one line, and its status.

A table says how each command is called rightly; what is wrong is put in its
place, flag by flag. So a new command or a new flag is tested when it is there.
"""

import argparse
import errno
import os
import shutil

import pytest

from launch.flags import parser as flags
from launch.output.exit_status import ExitStatus
from pipeline.storage import files as storage

# What stands for paths of fixtures in the table.
BASIS, INDEX, OUT, CONFIG = '<basis>', '<index>', '<out>', '<config>'
TASK = ('--task', 'tests.kit.linear_task:make_task', '--task_arg', '<workdir>')
QUERIES = ('--query_split', 'test[:3]')
CLOUD = ('--project', 'p', '--region', 'r', '--image', 'i')
JOB = ('--image', 'i', '--job_name', 'j')
REST = ('--', 'verify', '--index', 'gs://B/index')
SMALL = ('--projection_dim', '6', '--num_iterations', '6')

RIGHT = {
  'demo': ('--out', OUT),
  'train-example': ('digits_cnn', '--workdir', OUT),
  'fit-basis': (*TASK, '--out', OUT, *SMALL),
  'random-basis': (*TASK, '--out', OUT, '--projection_dim', '6'),
  'query-basis': (*TASK, '--out', OUT, *QUERIES),
  'project': (*TASK, '--basis', BASIS, '--index', OUT),
  'reindex': ('--config', CONFIG),
  'submit dataflow': (
    *(*TASK, *CLOUD, '--basis', 'memory://B/b', '--index', 'memory://B/i'),
    *('--temp_location', 'gs://B/tmp', '--print_request'),
  ),
  'submit batch': (*CLOUD, '--job_name', 'j', '--print_request', *REST),
  'submit kubernetes': (*JOB, *REST),
  'status': ('job', '--project', 'p', '--region', 'r'),
  'dataflow-template': ('--image', 'i', '--out', OUT),
  'schedule': ('--config', CONFIG, '--cron', '0 3 * * *', '--out', OUT),
  'topk': (*TASK, '--index', INDEX, *QUERIES, '--out', f'{OUT}.csv'),
  'self-influence': ('--index', INDEX, '--out', f'{OUT}.csv'),
  'report': (*TASK, '--index', INDEX, *QUERIES, '--out', f'{OUT}.html'),
  'evaluate detection': ('--index', INDEX, '--bad', 'half = 1', '--out', OUT),
  'evaluate lds': (
    *(*TASK, '--index', INDEX, *QUERIES, '--out', OUT),
    *('--num_subsets', '2'),
  ),
  'evaluate counterfactual': (
    *(*TASK, '--index', INDEX, *QUERIES, '--out', OUT, '--k', '5'),
  ),
  'evaluate retrieval': (
    *(*TASK, '--index', INDEX, *QUERIES, '--out', OUT),
    *('--relevant', 'half = query_half'),
  ),
  'evaluate agreement': (
    *(*TASK, '--index', INDEX, *QUERIES, '--out', OUT, '--reference', INDEX),
  ),
  'evaluate sensitivity': (*TASK, *QUERIES, '--out', OUT),
  'reproduce': ('digits', '--out', OUT),
  'doctor': (*TASK, '--basis', BASIS),
  'estimate': (*TASK, '--basis', BASIS),
  'runs': ('--index', INDEX),
  'explore': ('--index', INDEX, '--port', '99999'),
  'install-engine': ('prism',),
  'generations': ('--index', INDEX),
  'diff': ('--index', INDEX),
  'rollback': ('--index', INDEX, '--generation', '1'),
  'gc': ('--index', INDEX, '--dry_run'),
  'export': ('--index', INDEX, '--out', f'{OUT}.parquet'),
  'verify': ('--index', INDEX),
  'describe': ('--index', INDEX),
}
# Commands that write nothing on this machine, or far too long for a sweep.
WRITERS = [
  name
  for name, right in RIGHT.items()
  if any(OUT in word for word in right)
  and name not in ('reproduce', 'evaluate sensitivity')
]
ONE = {ExitStatus.FAILED, ExitStatus.USAGE}
# Numbers that mean something when they are nothing.
MAY_BE_ZERO = {
  'corrupt_pairs',
  'damping',
  'shrinkage',
  'data_seed',
  'flip_labels',
  'grace_hours',
  'max_rejected_fraction',
  'num_bootstrap',
  'num_preprocess_workers',
  'num_retries',
  'num_trace_probes',
  'pair_seed',
  'port',
  'preemptions_per_hour',
  'seed',
}
PARSERS = flags.build_parser()[1]


@pytest.fixture(name='refused')
def fixture_refused(influence, workdir, basis, index, tmp_path):
  """Runs a command with something wrong; checks that it is one line."""
  config = tmp_path / 'c.toml'
  config.write_text(
    f'task = "tests.kit.linear_task:make_task"\nbasis = "{basis}"\n'
    f'index = "{tmp_path / "i"}"\n[task_arg]\nworkdir = "{workdir}"\n'
  )
  places = {
    BASIS: str(basis),
    INDEX: str(index),
    OUT: str(tmp_path / 'out'),
    CONFIG: str(config),
    '<workdir>': f'workdir={workdir}',
  }

  def run(command, statuses, *, instead=None, more=(), without=None):
    words = [*RIGHT[command]]
    if without:
      place = words.index(without)
      del words[place : place + 2]
    for flag, value in (instead or {}).items():
      words[words.index(flag) + 1] = str(value)
    if '--' in words:
      place = words.index('--')
      words[place:place] = map(str, more)
    else:
      words += map(str, more)
    for name, path in places.items():
      words = [word.replace(name, path) for word in words]
    found = influence(*command.split(), *words)
    said = (command, words, found)
    assert 'Traceback' not in found.stderr, said
    assert found.status in statuses, said
    assert found.stderr.count('error: ') == 1, said
    return found.error_line

  return run


def test_every_command_is_swept():
  assert RIGHT.keys() == PARSERS.keys()


def _numbers(command):
  """(flag, whether it may be a fraction) of the numbers that it takes."""
  for action in PARSERS[command]._actions:
    if action.option_strings and action.type is not None:
      yield action.option_strings[0], action.type is float


@pytest.mark.parametrize('command', RIGHT)
def test_numbers_of_a_wrong_kind_or_size(refused, command):
  for flag, is_fraction in _numbers(command):
    line = refused(command, {ExitStatus.USAGE}, more=[flag, 'many'])
    assert flag in line
    for wrong in ('-1', 'nan', 'inf') if is_fraction else ('-1',):
      line = refused(command, {ExitStatus.USAGE}, more=[f'{flag}={wrong}'])
      assert flag.removeprefix('--') in line
    if flag.removeprefix('--') not in MAY_BE_ZERO:
      line = refused(command, ONE, more=[flag, '0'])
      assert ' is 0' in line or "'0' is no" in line or 'generation 0' in line


@pytest.mark.parametrize('command', RIGHT)
def test_unknown_and_missing_flags(refused, command):
  refused(command, {ExitStatus.USAGE}, more=['--nonsense', '1'])
  for action in PARSERS[command]._actions:
    if action.required and action.option_strings:
      right = RIGHT[command]
      flag = action.option_strings[0]
      if flag in right:
        line = refused(command, {ExitStatus.USAGE}, without=flag)
        assert flag.removeprefix('--') in line


def _paths(command, names):
  return [flag for flag in RIGHT[command] if flag.removeprefix('--') in names]


@pytest.mark.parametrize('command', RIGHT)
def test_inputs_that_are_not_there(refused, command, tmp_path):
  (tmp_path / 'file').write_text('x')
  (tmp_path / 'empty').mkdir()
  for flag in _paths(command, ('basis', 'index', 'reference', 'config')):
    if RIGHT[command][RIGHT[command].index(flag) + 1] == OUT:
      continue
    if command in ('schedule', 'submit dataflow', 'submit kubernetes') or (
      command == 'submit batch'
    ):
      continue  # They are there for the machine that works.
    for wrong in ('absent', 'file', 'empty', 'file/below', 'nonsense://x/y'):
      path = wrong if '://' in wrong else tmp_path / wrong
      refused(command, {ExitStatus.FAILED}, instead={flag: path})


@pytest.mark.parametrize('command', RIGHT)
def test_tasks_of_every_wrong_kind(refused, command):
  if '--task' not in RIGHT[command]:
    return
  for wrong in (
    'nonsense', 'no_module:f', 'tests.kit.linear_task:absent',
    'tests.kit.linear_task:not_a_task', 'tests.kit.linear_task:NUM_TRAIN',
  ):  # fmt: skip
    refused(command, {ExitStatus.FAILED}, instead={'--task': wrong})
  for fault in ('no_dataset', 'no_checkpoint', 'failing_loss', 'nan_loss'):
    more = ['--task_arg', f'fault={fault}']
    if command != 'submit dataflow':  # Its basis is looked for before.
      refused(command, {ExitStatus.FAILED}, more=more)


@pytest.mark.parametrize(
  ('fault', 'field'),
  [
    ('other_paths', 'selected paths'),
    ('other_reduction', 'loss reduction'),
    ('other_preprocessing', 'preprocessing'),
    ('foreign', 'preprocessing'),
  ],
)
@pytest.mark.parametrize(
  'command', [x for x, right in RIGHT.items() if '--task' in right]
)
def test_basis_or_index_of_another_task(refused, command, fault, field):
  """Refused with the status that says so, and the name of what differs."""
  if not {INDEX, BASIS} & set(RIGHT[command]):
    return
  more = ['--task_arg', f'fault={fault}']
  line = refused(command, {ExitStatus.STALE}, more=more)
  assert f'was made with other {field} ' in line


@pytest.mark.parametrize('command', WRITERS)
def test_outputs_that_cannot_be_written(refused, command, tmp_path):
  (tmp_path / 'file').write_text('x')
  flag, value = next(
    (flag, value)
    for flag, value in zip(RIGHT[command], RIGHT[command][1:], strict=False)
    if OUT in value
  )
  suffix = value.removeprefix(OUT)
  for wrong in ('/proc/nothing/o', tmp_path / 'file' / 'o'):
    refused(command, {ExitStatus.FAILED}, instead={flag: f'{wrong}{suffix}'})


@pytest.mark.slow
@pytest.mark.parametrize('command', WRITERS)
def test_full_disk(refused, command, tmp_path, monkeypatch):
  """Nothing is left that looks like a result."""
  create, replace = storage._create_local, os.replace

  def full(path, data):
    if len(data):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    create(path, data)

  def full_too(source, target):
    if 'out' in str(target):
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    replace(source, target)

  usage = shutil.disk_usage('/')._replace(free=0)
  monkeypatch.setattr(storage, '_create_local', full)
  monkeypatch.setattr(storage.os, 'replace', full_too)
  monkeypatch.setattr(shutil, 'disk_usage', lambda place: usage)
  refused(command, {ExitStatus.FAILED})
  left = {path.name for path in tmp_path.rglob('*') if path.is_file()}
  assert not left & {'basis.json', 'config.json', 'out.csv', 'out.parquet'}
  assert not any(name.startswith('manifest-') for name in left)


def test_numbers_are_known_to_the_parser():
  """`_numbers` finds them by their types."""
  assert dict(_numbers('topk')).keys() >= {'--k', '--damping', '--num_workers'}
  assert isinstance(PARSERS['topk'], argparse.ArgumentParser)
