"""The configuration of `influence reindex`: a TOML file.

task = "my_team.my_task:make_task"
basis = "gs://bucket/basis"
index = "gs://bucket/index"

refit_basis = true                 # where the model has changed
verify = true
announce = ["my-notifier", "--channel", "index"]   # gets JSON on its input
lock_hours = 24

[task_arg]
workdir = "gs://bucket/model"

[project]                          # flags of `influence project`
engine = "dask"
range_size = 2048
beam = ["--dask_client_address=tcp://scheduler:8786"]

[gc]                               # flags of `influence gc`; none, no gc
keep = 3
"""

from collections.abc import Mapping
import dataclasses
import difflib
import typing
from typing import Any

from influence_core import errors
from launch.flags import (
  command_table,
  config_file,
  fields,
  parser as flags_lib,
)
from launch.running import command_line
from pipeline.tasks.reference import TaskReference

# What a type of Python is in TOML.
_KINDS: dict[Any, tuple[Any, str]] = {
  str: (str, 'a text'),
  bool: (bool, 'true or false'),
  float: ((int, float), 'a number'),
  Mapping: (dict, 'a table'),
  tuple: (list, 'a list of texts'),
}


@dataclasses.dataclass(frozen=True)
class ReindexConfig:
  """What a reindex does; see the module for an example.

  Attributes:
    task: import path of the task.
    basis: path of the basis.
    index: path of the index.
    task_arg: arguments of the task.
    project: flags of `influence project`, without --; `beam` is what follows
      its --.
    refit_basis: whether a basis of another model is replaced by a new one, or
      the run fails.
    verify: whether every byte of the index is read afterwards.
    gc: flags of `influence gc`; None for no gc.
    announce: program with arguments that gets the result as JSON; None for
      none.
    lock_hours: how long the lock of a run that was killed keeps others away.
  """

  task: str
  basis: str
  index: str
  task_arg: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  project: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  refit_basis: bool = False
  verify: bool = True
  gc: Mapping[str, Any] | None = None
  announce: tuple[str, ...] | None = None
  lock_hours: float = 24.0

  def project_arguments(self, basis: str) -> dict[str, Any]:
    """Arguments of the command `project`, checked as on its command line."""
    flags = dict(self.project)
    beam = flags.pop('beam', [])
    task = TaskReference(self.task, self.task_arg)
    files = ('--basis', basis, '--index', self.index)
    line = ['project', *command_line.task_flags(task), *files]
    return flags_lib.parse([*line, *_as_flags(flags), '--', *beam])[1]

  def gc_arguments(self) -> dict[str, Any]:
    """Arguments of the command `gc`, checked as on its command line."""
    flags = _as_flags(self.gc or {})
    return flags_lib.parse(['gc', '--index', self.index, *flags])[1]


def load(path: str) -> ReindexConfig:
  """Reads a configuration and checks all of it.

  Raises:
    errors.InputError: Names the file and what is wrong with it.
    SystemExit: A flag of a command is wrong, which was told.
  """
  content = config_file.read_toml(path)
  # The same file may have tables for other commands, see `flags.config_file`.
  known = {field.name for field in dataclasses.fields(ReindexConfig)}
  content = {
    name: value
    for name, value in content.items()
    if name in known or name not in command_table.COMMANDS
  }
  _check_keys(path, content)
  config = ReindexConfig(**content)
  config.project_arguments(config.basis)
  config.gc_arguments()
  return config


def _check_keys(path: str, content: Mapping[str, Any]) -> None:
  """Checks names and types against the fields of `ReindexConfig`."""
  known = {field.name: field for field in dataclasses.fields(ReindexConfig)}
  for name in content:
    if name not in known:
      close = difflib.get_close_matches(name, known, 1)
      hint = f'did you mean {close[0]}' if close else f'it has {list(known)}'
      raise errors.InputError(f'{path} has an unknown key {name!r}; {hint}')
  for name, hint in typing.get_type_hints(ReindexConfig).items():
    kind = fields.without_none(hint)
    kinds, words = _KINDS[typing.get_origin(kind) or kind]
    if name not in content:
      if fields.is_required(known[name]):
        raise errors.InputError(f'{path} lacks {name}, {words}')
    elif not isinstance(content[name], kinds):
      raise errors.InputError(
        f'{path}: {name} is {content[name]!r}, expected {words}'
      )


def _as_flags(values: Mapping[str, Any]) -> list[str]:
  flags = []
  for name, value in values.items():
    if value is True:
      flags.append(f'--{name}')
    elif value is not False:
      flags += [f'--{name}', str(value)]
  return flags
