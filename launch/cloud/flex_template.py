"""The flex template: a projection job that schedulers launch by one request.

`specification` is the file that names the container and its parameters, made
from the flags of `influence submit dataflow`; `launch_parameter` is what
launches it; `command_line` is for `launch.dataflow_launcher`, which Dataflow
calls with --name=value for each parameter and for what it adds itself.
"""

import argparse
from collections.abc import Mapping, Sequence
import shlex
from typing import Any

import apache_beam

from influence_core import errors
from launch.flags import (
  dataflow as dataflow_flags,
  fields,
  project as project_flags,
)
from launch.flags.dataflow import DataflowJob
from pipeline.projection.request import ProjectionRequest

# Flags that launching has words of its own for.
_OF_LAUNCHING = (
  'help',
  'project',
  'region',
  'dataflow_endpoint',
  'temp_location',
  'job_name',
  'template',
  'print_request',
  'even_if_done',
)
# Several values, and what goes to Beam, are one parameter each.
_SEVERAL = 'task_args'
_BEAM = 'beam_arguments'


def parameters() -> list[dict[str, Any]]:
  """The parameters of the template, from the flags of the command."""
  return [
    *map(_parameter, _flags().values()),
    {
      'name': _BEAM,
      'label': _BEAM,
      'helpText': 'more options for Beam, as on a command line',
      'isOptional': True,
      'paramType': 'TEXT',
    },
  ]


def specification(image: str) -> dict[str, Any]:
  """The content of the template file."""
  return {
    'image': image,
    'sdkInfo': {'language': 'PYTHON'},
    'defaultEnvironment': {'sdkContainerImage': image},
    'metadata': {
      'name': 'influence project',
      'description': (
        'Projects the gradient of every training example and stores an index '
        f'(Beam {apache_beam.__version__}).'
      ),
      'parameters': parameters(),
    },
  }


def launch_parameter(
  where: DataflowJob, template: str, request: ProjectionRequest
) -> dict[str, Any]:
  """The request that launches the template, but for project and region.

  Args:
    where: the job.
    template: gs:// path of the template file.
    request: what is projected.

  Raises:
    errors.InputError: An argument of the task has a comma in it.
  """
  given = {
    **project_flags.REQUEST.as_flags(request),
    **dataflow_flags.JOB.as_flags(where),
  }
  given[_SEVERAL] = join_arguments(given.pop('task_arg'))
  given[_BEAM] = shlex.join(where.beam_arguments) or None
  texts = {
    name: 'true' if value is True else str(value)
    for name, value in given.items()
    if name not in _OF_LAUNCHING and value is not None and value is not False
  }
  return {
    'jobName': where.name,
    'containerSpecGcsPath': template,
    'parameters': texts,
    'environment': {
      'tempLocation': where.temp_location,
      'sdkContainerImage': where.image,
    },
  }


def join_arguments(arguments: Mapping[str, str]) -> str | None:
  """Arguments of a task as one parameter; None for none.

  Raises:
    errors.InputError: A value has a comma in it.
  """
  for name, value in arguments.items():
    if ',' in value:
      raise errors.InputError(
        f'task_arg {name} is {value!r}; a template takes no comma in it'
      )
  return ','.join(f'{k}={v}' for k, v in arguments.items()) or None


def command_line(argv: Sequence[str]) -> list[str]:
  """The `influence` command line for what Dataflow calls the launcher with.

  Raises:
    errors.InputError: An argument is not of the form --name=value.
  """
  flags = _flags()
  own, beam = [], []
  for argument in argv:
    name, separator, value = argument.removeprefix('--').partition('=')
    if not (separator and argument.startswith('--')):
      raise errors.InputError(f'{argument!r} is not of the form --name=value')
    if name == _BEAM:
      beam += shlex.split(value)
    elif name == _SEVERAL:
      own += [x for text in value.split(',') for x in ('--task_arg', text)]
    elif name in flags and flags[name].nargs == 0:
      own += [f'--{name}'] if value.lower() == 'true' else []
    elif name in flags or name in _OF_LAUNCHING:
      own.append(argument)
    elif name not in ('runner', 'sdk_container_image'):
      beam.append(argument)
  return ['submit', 'dataflow', '--even_if_done', *own, '--', *beam]


def _flags() -> dict[str, argparse.Action]:
  parser = fields.CommandParser(add_help=False)
  dataflow_flags.add_submit(parser)
  return {
    _SEVERAL if action.dest == 'task_arg' else action.dest: action
    for action in parser._actions
    if action.dest not in _OF_LAUNCHING
  }


def _parameter(action: argparse.Action) -> dict[str, Any]:
  text = (action.help or '') % {'default': action.default}
  name = action.dest
  if name == 'task_arg':
    name, text = _SEVERAL, 'arguments of that function: NAME=VALUE,NAME=VALUE'
  parameter = {
    'name': name,
    'label': name,
    'helpText': text,
    'isOptional': not action.required,
    'paramType': 'TEXT',
  }
  if action.choices:
    parameter['regexes'] = ['|'.join(map(str, action.choices))]
  return parameter
