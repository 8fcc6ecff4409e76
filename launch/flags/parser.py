"""Parses the `influence` command line."""

import argparse
from collections.abc import Sequence
import dataclasses
import difflib
from importlib import metadata
import math
from typing import Any, NoReturn

from influence_core.projection.options import ProjectionOptions
from influence_core.scores.options import ScoreOptions
from launch.flags import command_table, sensitivity
from launch.output import exit_status
from pipeline.bases import (
  fit_basis_config,
)
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.bases.random_basis_config import RandomBasisConfig
from pipeline.beam.engines import EngineChoice
from pipeline.search import selection as selection_lib
from pipeline.search.request import SearchRequest
from pipeline.tasks.reference import TaskReference

_DISTRIBUTION = 'influence-pipeline'
# Of flags that may have been meant: --where is no --verbose.
_LIKENESS = 0.7


class _Parser(argparse.ArgumentParser):
  """Tells an error in one line, with the flag that may have been meant."""

  def __init__(self, **kwargs):
    super().__init__(
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **kwargs,
    )

  def error(self, message: str) -> NoReturn:
    self.exit(2, f'{self.prog}: error: {message}; see {self.prog} --help\n')

  def suggestion(self, argument: str) -> str:
    """' (did you mean --x?)' when a known flag is close, else ''."""
    name = argument.split('=', 1)[0]
    close = difflib.get_close_matches(
      name, self._option_string_actions, 1, _LIKENESS
    )
    return f' (did you mean {close[0]}?)' if close else ''


def build_parser() -> tuple[_Parser, dict[str, _Parser]]:
  """The parser of the program, and those of its commands by name."""
  parser = _Parser(
    prog='influence',
    description=(
      'Which training examples made a model behave as it does?\n'
      'Influence functions by Arnoldi iteration, for corpora of any size.'
    ),
    epilog=(
      'The order of the work: train-example (or your own model), fit-basis,\n'
      'project, then topk and self-influence as often as you like.\n'
      "Start with 'influence demo'.\n\n"
      f'exit status:\n{exit_status.table()}'
    ),
  )
  parser.add_argument(
    '--version',
    action='version',
    version=f'influence {metadata.version(_DISTRIBUTION)}',
  )
  groups = {'': _add_group(parser)}
  made = {}
  for name, about in command_table.COMMANDS.items():
    group, _, last = name.rpartition(' ')
    if group not in groups:
      groups[group] = _add_group(
        groups[''].add_parser(group, help=command_table.GROUPS[group])
      )
    command = groups[group].add_parser(
      last,
      help=about.summary,
      description=about.summary[0].upper() + about.summary[1:] + '.',
      epilog=f'example:\n  influence {name} {about.example}',
    )
    about.add_arguments(command)
    command.set_defaults(command=name)
    _add_reporting(command)
    made[name] = command
  return parser, made


def _add_reporting(command: _Parser) -> None:
  command.add_argument(
    '--json',
    action='store_true',
    help='print one JSON object on stdout and nothing else there',
  )
  command.add_argument(
    '--log_json',
    action='store_true',
    help='log lines are JSON objects, as log services want them',
  )
  command.add_argument(
    '--metrics_file',
    metavar='FILE',
    help="write the result's numbers here at the end, in Prometheus' format",
  )
  command.add_argument(
    '--verbose', action='store_true', help='show warnings of libraries too'
  )


_BASIS_CONFIGS = {
  'random-basis': RandomBasisConfig,
  'query-basis': QueryBasisConfig,
}
# Flags of every command, which the program itself follows.
REPORTING = ('command', 'json', 'log_json', 'metrics_file', 'verbose')


def _add_group(parser: _Parser) -> Any:
  return parser.add_subparsers(metavar='COMMAND', required=True)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Splits a command line into common flags and the command's arguments."""
  parser, commands = build_parser()
  own, rest = _split_at_separator(argv)
  flags, unknown = parser.parse_known_args(own)
  command = commands[flags.command]
  if unknown:
    hint = command.suggestion(unknown[0])
    command.error(f'unknown argument {unknown[0]}{hint}')
  _check_numbers(command, flags)
  values = vars(flags).copy()
  for name in REPORTING:
    del values[name]
  if argument := command_table.COMMANDS[flags.command].rest:
    values[argument] = rest
  elif rest:
    command.error(f'{flags.command} takes nothing after --')
  if 'task' in values:
    values['task'] = TaskReference(
      values['task'],
      _named_values(command, 'task_arg', values.pop('task_arg')),
    )
  if 'label' in values:
    values['label'] = _named_values(command, 'label', values['label'])
  if 'fixed' in values:
    values['fixed'] = _named_values(command, 'fixed', values['fixed'])
  if 'knob' in values:
    pairs = _named_values(command, 'knob', values.pop('knob'))
    knobs = {name: tuple(text.split(',')) for name, text in pairs.items()}
    values['knobs'] = knobs or sensitivity.DEFAULT_KNOBS
  if 'krylov_dtype' in values:
    _gather_fit_basis(values)
  if config_class := _BASIS_CONFIGS.get(flags.command):
    values['task'] = values['task'].selecting(values.pop('parameter_paths'))
    values['config'] = _from_values(config_class, values)
  if 'basis_placement' in values:
    values['projection_options'] = ProjectionOptions(
      batch_size=values.pop('batch_size'),
      basis_dtype=values.pop('basis_dtype'),
      basis_placement=values.pop('basis_placement'),
      memory_budget_bytes=values.pop('memory_budget'),
    )
  if 'damping' in values:
    values['options'] = _from_values(ScoreOptions, values)
  if 'engine' in values and 'num_workers' in values:
    values['engine'] = _from_values(EngineChoice, values)
  if 'group_by' in values:
    values['selection'] = selection_lib.Selection(
      where=values.pop('where'), group_by=values.pop('group_by')
    )
  if 'certify' in values:
    values['request'] = _from_values(SearchRequest, values)
  return flags, values


def _check_numbers(command: _Parser, flags: argparse.Namespace) -> None:
  """Refuses what no flag can mean: less than nothing, NaN and infinity."""
  for action in command._actions:
    value = getattr(flags, action.dest, None)
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
      command.error(
        f'{action.dest} is {value}, expected a finite number of at least 0'
      )


def _gather_fit_basis(values: dict[str, Any]) -> None:
  """Flags of fit-basis as the objects that its job takes."""
  values['task'] = values['task'].selecting(values.pop('parameter_paths'))
  values['resources'] = fit_basis_config.Resources(
    microbatch_size=values.pop('microbatch_size'),
    memory_budget_bytes=values.pop('memory_budget'),
    placement=values.pop('krylov_placement'),
    parameter_placement=values.pop('parameter_placement'),
    work_dir=values.pop('work_dir'),
    max_rejected_fraction=values.pop('max_rejected_fraction'),
  )
  values['config'] = _from_values(fit_basis_config.FitBasisConfig, values)


def _from_values(config_class: Any, values: dict[str, Any]) -> Any:
  """A dataclass of the flags that are named as its fields."""
  fields = dataclasses.fields(config_class)
  return config_class(**{x.name: values.pop(x.name) for x in fields})


def _split_at_separator(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  argv = list(argv)
  position = argv.index('--') if '--' in argv else len(argv)
  return argv[:position], argv[position + 1 :]


def _named_values(
  command: _Parser, flag: str, texts: Sequence[str]
) -> dict[str, str]:
  arguments = {}
  for text in texts:
    name, separator, value = text.partition('=')
    if not (name and separator):
      command.error(f'--{flag} is {text!r}, expected NAME=VALUE')
    arguments[name] = value
  return arguments
