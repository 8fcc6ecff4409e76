"""Flags from a TOML file, of the same form as that of `influence reindex`.

    task = "my_team.my_task:make_task"
    basis = "gs://bucket/basis"
    index = "gs://bucket/index"

    [task_arg]
    workdir = "gs://bucket/model"

    [fit-basis]
    sample_size = 8192

    [topk]
    query_split = "test[:100]"

One file serves all commands: each takes task, basis and index where it has such
flags, and the table of its own name. What is typed stands above the file.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
import difflib
import tomllib
from typing import Any

from influence_core import errors

FLAG = '--config'
# At the top of a file: what commands share, and what `reindex` alone reads.
_SHARED = ('task', 'task_arg', 'basis', 'index')
_OF_REINDEX = ('refit_basis', 'verify', 'gc', 'announce', 'lock_hours')
# What follows -- on the command line.
_REST = 'beam'


def path_in(argv: Sequence[str]) -> str | None:
  """The file that a command line names, if it names one."""
  for number, word in enumerate(argv):
    if word.startswith(f'{FLAG}='):
      return word.partition('=')[2]
    if word == FLAG and number + 1 < len(argv):
      return argv[number + 1]
  return None


def expand(
  command: str,
  known: argparse.ArgumentParser,
  commands: Sequence[str],
  typed: Sequence[str],
  path: str,
) -> tuple[list[str], list[str]]:
  """Words that stand for a file, to be put before those that were typed.

  Args:
    command: name of it.
    known: its parser.
    commands: names of all.
    typed: on the command line.
    path: of the file, local or remote.

  Returns:
    Flags, and what follows --.

  Raises:
    errors.InputError: The file cannot be read, or has a key that is no flag.
  """
  content = read_toml(path)
  own, shared = {}, {}
  for key, value in content.items():
    if key in _OF_REINDEX and not isinstance(value, dict):
      continue
    if key == command:
      own = _table(path, key, value)
    elif key in _SHARED:
      shared[key] = value
    elif key not in (*commands, *_OF_REINDEX):
      raise _unknown(path, key, [*_SHARED, *commands])
  actions = {
    option.removeprefix('--'): action
    for option, action in known._option_string_actions.items()
    if option.startswith('--')
  }
  if 'basis' in shared and command.endswith('-basis'):
    shared['out'] = shared.pop('basis')
  values = {k: v for k, v in shared.items() if k in actions} | own
  rest = values.pop(_REST, [])
  for key in values:
    if key not in actions:
      raise _unknown(path, f'{command}.{key}', list(actions), key)
  is_typed = {word.partition('=')[0].removeprefix('--') for word in typed}
  words: list[str] = []
  for key, value in values.items():
    if key not in is_typed:
      words += _words(path, key, value, actions[key])
  return words, [str(word) for word in rest]


def resolved(
  command: str,
  known: argparse.ArgumentParser,
  flags: Mapping[str, Any],
  rest: Sequence[str],
) -> dict[str, Any]:
  """The content of a file that stands for a command line, defaults included.

  Args:
    command: name of it.
    known: its parser.
    flags: value of each, by destination, as they were parsed.
    rest: what followed --.
  """
  shared: dict[str, Any] = {}
  own: dict[str, Any] = {}
  for action in known._actions:
    option = next((x for x in action.option_strings if x[:2] == '--'), None)
    value = flags.get(action.dest)
    is_left_out = value is None or value is False or value in ([], (), {})
    if option is None or is_left_out:
      continue
    name = option.removeprefix('--')
    place = shared if name in _SHARED else own
    place[name] = list(value) if isinstance(value, tuple) else value
  if rest:
    own[_REST] = list(rest)
  if flags.get('out') and command.endswith('-basis'):
    shared['basis'] = own.pop('out')
  ordered = {name: shared[name] for name in _SHARED if name in shared}
  tables = {k: v for k, v in ordered.items() if isinstance(v, dict)}
  plain = {k: v for k, v in ordered.items() if k not in tables}
  return {**plain, **tables, command: own}


def read_toml(
  path: str, missing: str = f'no configuration at {{}}; correct {FLAG}'
) -> dict[str, Any]:
  """The content of a TOML file.

  Args:
    path: local or remote.
    missing: what is told of a file that is not there, with {} for its path.

  Raises:
    errors.InputError: It is not there, or no TOML file.
  """
  # It takes time to import.
  from pipeline.storage import files as storage

  if not storage.exists(path):
    raise errors.InputError(missing.format(path))
  try:
    return tomllib.loads(storage.read_bytes(path).decode())
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise errors.InputError(f'{path} is no TOML file ({error})') from error


def _table(path: str, key: str, value: Any) -> dict[str, Any]:
  if not isinstance(value, dict):
    raise errors.InputError(
      f'{path}: {key} is {value!r}, expected a table, [{key}]'
    )
  return dict(value)


def _unknown(
  path: str, key: str, known: Sequence[str], name: str = ''
) -> errors.InputError:
  close = difflib.get_close_matches(name or key, known, 1)
  hint = f'did you mean {close[0]}' if close else f'it takes {", ".join(known)}'
  return errors.InputError(f'{path} has an unknown key {key!r}; {hint}')


def _words(
  path: str, key: str, value: Any, action: argparse.Action
) -> Iterator[str]:
  """What would be typed for a value."""
  flag = f'--{key}'
  takes_none = action.nargs == 0
  if isinstance(value, bool) != takes_none:
    expected = 'true or false' if takes_none else 'a value'
    raise errors.InputError(f'{path}: {key} is {value!r}, expected {expected}')
  if isinstance(value, bool):
    yield from [flag] * value
  elif isinstance(value, dict):
    for name, one in value.items():
      yield from (flag, f'{name}={one}')
  elif isinstance(value, list):
    # Lists of lists are of a flag that may be repeated.
    are_lists = value and all(isinstance(x, list) for x in value)
    for one in value if are_lists else [value]:
      yield from (flag, *map(str, one))
  else:
    # As one word, since a value may begin with a minus.
    yield f'{flag}={value}'
