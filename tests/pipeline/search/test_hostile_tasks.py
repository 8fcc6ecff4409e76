"""Functions that an index names are called only if they make tasks."""

import json
import shutil

import pytest

from influence_core import errors
from pipeline.index import reader as index_reader
from pipeline.search import index_session
from pipeline.storage import checked_files
from pipeline.tasks.reference import TaskReference


@pytest.fixture(name='index_naming')
def fixture_index_naming(index, tmp_path):
  """An index whose manifest names another task, with a fitting checksum."""

  def make(task):
    copy = shutil.copytree(index, tmp_path / 'copy')
    [manifest] = copy.glob('manifest-*.json')
    content = checked_files.read_json(str(manifest))
    content['provenance']['task'] = task
    manifest.write_bytes(checked_files.encode_json(content))
    return copy

  return make


@pytest.mark.parametrize(
  ('import_path', 'argument'),
  [
    ('os:system', 'command'),
    ('shutil:rmtree', 'path'),
    ('subprocess:Popen', 'args'),
    ('numpy:load', 'file'),
    ('builtins:eval', 'source'),
    ('pipeline.storage.files:remove_directory', 'path'),
    ('launch.cli:main', 'argv'),
    ('tests.kit.linear_task:prepare', 'workdir'),
  ],
)
def test_nothing_else_is_called(
  index_naming, influence, tmp_path, import_path, argument
):
  victim = tmp_path / 'victim'
  victim.mkdir()
  index = index_naming(
    {'import_path': import_path, 'arguments': {argument: f'{victim}'}}
  )
  asked = influence('topk', '--index', index, '--query_split', 'test[:1]')
  assert f'names the task {import_path}, which is no function' in (
    asked.error_line
  )
  assert victim.exists()


@pytest.mark.parametrize(
  ('task', 'message'),
  [
    ({'import_path': 3, 'arguments': {}}, 'import_path is 3'),
    ({'import_path': 'a:b', 'arguments': {'x': {}}}, 'arguments.x is {}'),
    ({'arguments': {}}, 'import_path'),
    ({'import_path': '../x.py:f', 'arguments': {}}, 'names a file'),
    ({'import_path': '.:f', 'arguments': {}}, 'task'),
  ],
)
def test_what_is_no_name_of_a_task_is_one_line(index_naming, task, message):
  index = str(index_naming(task))
  with pytest.raises(errors.InputError, match=message) as error:
    index_session.task_of(index_reader.Index(index))
  assert '\n' not in str(error.value)


@pytest.mark.parametrize(
  'import_path',
  [
    'tests.kit.linear_task:make_task',
    'tests.benchmarks.scale_task:make_task',
    'launch.example_tasks.digits_cnn:make_task',
    'launch.example_tasks.mnist_cnn:make_task',
    'launch.example_tasks.seq2seq:make_task',
    'launch.example_tasks.causal_lm:make_task',
    'launch.example_tasks.facts:make_task',
  ],
)
def test_tasks_may_be_named(import_path):
  TaskReference(import_path).check_named_by('an index')


def test_the_reader_may_trust_it(index_naming, task_flags, influence):
  """Whoever gives --task knows what it does."""
  index = index_naming({'import_path': 'os:system', 'arguments': {}})
  asked = influence(
    *('topk', '--index', index, *task_flags, '--query_split', 'test[:1]'),
    '--json',
  )
  assert asked.status == 0, asked.stderr
  assert json.loads(asked.stdout)['results']
