"""How command lines become arguments, and what is told of the user's code."""

import sys

import pytest

from influence_core import errors
from pipeline.tasks.reference import TaskReference


def load(workdir, function='with_types', **arguments):
  return TaskReference(
    f'tests.kit.odd_tasks:{function}', {'workdir': str(workdir), **arguments}
  ).load()


@pytest.mark.parametrize(
  ('arguments', 'expected'),
  [
    ({}, (1, 0.5, 'a', None)),
    ({'num': '7'}, (7, 0.5, 'a', None)),
    ({'num': 'none', 'rate': '2'}, (None, 2.0, 'a', None)),
    ({'num': 'None', 'rate': 'fast'}, (None, 'fast', 'a', None)),
    ({'kind': 'b', 'anything': '3'}, (1, 0.5, 'b', '3')),
  ],
)
def test_texts_become_the_annotated_types(workdir, arguments, expected):
  assert load(workdir, **arguments).name == repr(expected)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'num': 'x'}, "num is 'x', expected int or none"),
    ({'kind': 'c'}, "kind is 'c', expected a or b"),
    ({'else': 'c'}, "takes no argument 'else'; it takes workdir, num, rate"),
  ],
)
def test_other_texts_are_refused(workdir, arguments, message):
  with pytest.raises(errors.InputError, match=message):
    load(workdir, **arguments)


def test_more_arguments_are_passed_on(workdir):
  assert load(workdir, 'with_more', flavour='sweet').name == 'linear'


def test_annotations_for_type_checkers_alone_are_text(workdir):
  assert load(workdir, 'make_task', unused='1,2').name == 'linear'


@pytest.fixture(name='module')
def fixture_module(tmp_path, monkeypatch):
  monkeypatch.syspath_prepend(tmp_path)

  def write(text):
    (tmp_path / 'users_own.py').write_text(text)
    sys.modules.pop('users_own', None)
    return 'users_own:make_task'

  yield write
  sys.modules.pop('users_own', None)


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    (
      'x = 1\ndef make_task(:\n',
      "importing 'users_own' of task users_own:make_task failed (SyntaxError: "
      'invalid syntax, {file}:2)',
    ),
    (
      'x = 1\n\n1 / 0\n',
      'failed (ZeroDivisionError: division by zero, {file}:3',
    ),
    ('import no_such_thing\n', "named 'no_such_thing', {file}:1)"),
    (
      'import json\ndef make_task():\n  json.loads("{")\n',
      'users_own:make_task failed (JSONDecodeError: Expecting property name',
    ),
    ('import json\ndef make_task():\n  json.loads("{")\n', ', {file}:3); cor'),
    ('import sys\nsys.exit(0)\n', 'failed (SystemExit: 0, {file}:2); cor'),
    ('def make_task():\n  exit(0)\n', 'failed (SystemExit: 0, {file}:2); cor'),
    ('def make_task(a, /):\n  pass\n', 'needs a; pass --task_arg a=VALUE'),
  ],
)
def test_failure_of_the_users_code_is_one_line_with_its_place(
  influence, module, tmp_path, text, message
):
  command = ['fit-basis', '--task', module(text), '--out', tmp_path / 'b']
  expected = message.format(file=tmp_path / 'users_own.py')
  assert expected in influence(*command).error_line
  assert 'Traceback' in influence(*command, '--verbose').stderr


@pytest.mark.parametrize(
  ('task', 'module'),
  [
    ('tasks.py:make', 'tasks:make'),
    ('./mine/tasks.py:make', 'mine.tasks:make'),
    ('mine/tasks:make', 'mine.tasks:make'),
    ('/home/me/tasks.py:make', 'tasks:make'),
  ],
)
def test_files_are_no_modules(task, module):
  with pytest.raises(errors.InputError, match=f'holds it and name {module}$'):
    TaskReference(task).load()


def test_errors_that_are_meant_for_the_user_stay_as_they_are(
  influence, module, tmp_path
):
  text = (
    'from influence_core import errors\n'
    'def make_task():\n'
    '  raise errors.InputError("nothing was trained")\n'
  )
  found = influence(
    'fit-basis', '--task', module(text), '--out', tmp_path / 'b'
  )
  assert found.error_line == 'influence: error: nothing was trained'


def test_failing_parameters_are_told(influence, workdir, tmp_path):
  found = influence(
    *(
      'fit-basis',
      '--task',
      'tests.kit.odd_tasks:make_task',
      '--out',
      tmp_path,
    ),
    *('--task_arg', f'workdir={workdir}', '--task_arg', 'parameters=failing'),
  )
  assert (
    'load_parameters of task linear failed (ValueError: no such thing, '
    in (found.error_line)
  )
  assert 'odd_tasks.py:' in found.error_line
