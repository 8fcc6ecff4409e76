"""Parses the `influence` command line."""

import argparse
from collections.abc import Mapping, Sequence
from importlib import metadata
import math
from typing import Any

from launch.flags import command_table, config_file, fields
from launch.output import exit_status

_DISTRIBUTION = 'influence-pipeline'


def build_parser() -> tuple[
  fields.CommandParser, dict[str, fields.CommandParser]
]:
  """The parser of the program, and those of its commands by name."""
  parser = fields.CommandParser(
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


def _add_reporting(command: fields.CommandParser) -> None:
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
  if config_file.FLAG in command._option_string_actions:
    return  # A file of its own, of the same form.
  command.add_argument(
    config_file.FLAG,
    dest='config_file',
    metavar='FILE',
    help='TOML file with flags, those of reindex, too; what is typed wins',
  )
  command.add_argument(
    '--print_config',
    action='store_true',
    help='print all flags as such a file, and do nothing else',
  )


# Flags of every command, which the program itself follows.
REPORTING = (
  *('command', 'json', 'log_json', 'metrics_file', 'verbose'),
  *('config_file', 'print_config'),
)


def _add_group(parser: fields.CommandParser) -> Any:
  return parser.add_subparsers(metavar='COMMAND', required=True)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Splits a command line into common flags and the command's arguments."""
  parser, commands = build_parser()
  own, rest = _with_config(commands, *_split_at_separator(argv))
  flags, unknown = parser.parse_known_args(own)
  command = commands[flags.command]
  if unknown:
    hint = command.suggestion(unknown[0])
    command.error(f'unknown argument {unknown[0]}{hint}')
  _check_numbers(command, flags)
  values = vars(flags).copy()
  flags.resolved = _resolved(command, flags, rest)
  for name in REPORTING:
    values.pop(name, None)
  if argument := command_table.COMMANDS[flags.command].rest:
    values[argument] = rest
  elif rest:
    command.error(f'{flags.command} takes nothing after --')
  for group in command.groups:
    values[group.name] = group.take(values)
  return flags, values


def _with_config(
  commands: Mapping[str, fields.CommandParser],
  own: list[str],
  rest: list[str],
) -> tuple[list[str], list[str]]:
  """A command line with the flags of the file that it names.

  Raises:
    errors.InputError: The file cannot be used.
  """
  names = (' '.join(own[:count]) for count in (2, 1))
  name = next((x for x in names if x in commands), None)
  if name is None or not _takes_file(commands[name]):
    return own, rest
  path = config_file.path_in(own)
  if path is None:
    return own, rest
  start = len(name.split())
  words, more = config_file.expand(
    name, commands[name], list(commands), own[start:], path
  )
  return [*own[:start], *words, *own[start:]], rest or more


def _takes_file(command: fields.CommandParser) -> bool:
  return '--print_config' in command._option_string_actions


def _resolved(
  command: fields.CommandParser, flags: argparse.Namespace, rest: list[str]
) -> dict[str, Any] | None:
  """The command line as a file; None where files are other ones."""
  if not _takes_file(command):
    return None
  values = {k: v for k, v in vars(flags).items() if k not in REPORTING}
  return config_file.resolved(flags.command, command, values, rest)


def _check_numbers(
  command: fields.CommandParser, flags: argparse.Namespace
) -> None:
  """Refuses what no flag can mean: less than nothing, NaN and infinity."""
  for action in command._actions:
    given = getattr(flags, action.dest, None)
    for value in given if isinstance(given, list) else [given]:
      if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        command.error(
          f'{action.dest} is {value}, expected a finite number of at least 0'
        )


def _split_at_separator(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  argv = list(argv)
  position = argv.index('--') if '--' in argv else len(argv)
  return argv[:position], argv[position + 1 :]
