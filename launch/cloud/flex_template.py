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
from launch.cloud import dataflow_job
from launch.flags import dataflow as dataflow_flags, fields

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
  where: dataflow_job.DataflowJob, template: str, values: Mapping[str, Any]
) -> dict[str, Any]:
  """The request that launches the template, but for project and region.

  Args:
    where: the job.
    template: gs:// path of the template file.
    values: of its parameters by name; None for those not given.
  """
  given = {**values, 'worker': where.worker, 'image': where.image}
  texts = {
    name: str(value).lower() if isinstance(value, bool) else str(value)
    for name, value in given.items()
    if value not in (None, False)
  }
  if where.right_fitting:
    texts['right_fitting'] = 'true'
  if where.beam_arguments:
    texts[_BEAM] = shlex.join(where.beam_arguments)
  return {
    'jobName': where.name,
    'containerSpecGcsPath': template,
    'parameters': texts,
    'environment': {
      'tempLocation': where.temp_location,
      'sdkContainerImage': where.image,
    },
  }


def joined(arguments: Mapping[str, str]) -> str | None:
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
