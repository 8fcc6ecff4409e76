"""Runs a command that was parsed, and tells its errors in one line."""

import argparse
from collections.abc import Mapping
import contextlib
import os
import sys
import traceback
from typing import Any, NamedTuple

import tomli_w

from influence_core import errors
from influence_core.devices import host_allocator
from launch.output import (
  console as console_lib,
  error_lines,
  exit_status,
  json_text,
  metrics,
)
from launch.running import command_line
from pipeline.storage import file_identity, files as storage

# Flags that say where a command writes.
_OUTPUTS = ('out', 'workdir')

# Beam's threads, which may be blocked for ever, can be stopped in no other way.
_ENDING_AT_ONCE = (
  exit_status.ExitStatus.INTERRUPTED,
  exit_status.ExitStatus.STALLED,
)


class _Failure(NamedTuple):
  """Why a command did not succeed: a line and an exit status."""

  line: str
  status: exit_status.ExitStatus


def run(flags: argparse.Namespace, values: dict[str, Any]) -> int:
  """Runs a command; returns the exit status, 0 only on success.

  Args:
    flags: those of every command, from `flags.parser.parse`.
    values: the command's own arguments.
  """
  host_allocator.keep_freed_memory()
  console = console_lib.Console(json_only=flags.json)
  result: dict[str, Any] = {}
  failure = None
  try:
    if flags.metrics_file:
      metrics.check(flags.metrics_file)
    with contextlib.ExitStack() as stack:
      if flags.json:  # Tasks may print; stdout is for one JSON object.
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
      console.wait(f'{flags.command}: loading')
      result = _run(console, flags, values)
      console.print_suggestions()
  except (Exception, KeyboardInterrupt) as error:
    failure = _failure(error)
    if failure is None:
      # A defect of ours, whose traceback is shown; monitoring learns of it.
      _write_metrics(flags, console, exit_status.ExitStatus.FAILED, {})
      raise
    if flags.verbose:
      traceback.print_exception(error)
  finally:
    console.end_wait()
  failure = failure or _keep_config(flags)
  status = failure.status if failure else exit_status.ExitStatus.DONE
  unwritten = _write_metrics(flags, console, status, result)
  failure = failure or unwritten
  if failure:
    return _tell(failure, as_json=flags.log_json)
  if flags.json:
    print(json_text.encode(result))
  return 0


def _run(
  console: console_lib.Console,
  flags: argparse.Namespace,
  values: dict[str, Any],
) -> dict[str, Any]:
  settings = {'verbose': flags.verbose, 'as_json': flags.log_json}
  # Before Beam is imported, which warns of packages that are not needed.
  console_lib.configure_logging(**settings)
  module = command_line.module_of(flags.command)
  # Importing Beam and TFDS can add handlers and levels of their own.
  console_lib.configure_logging(**settings)
  return module.run(console, **values)


def _write_metrics(
  flags: argparse.Namespace,
  console: console_lib.Console,
  status: exit_status.ExitStatus,
  result: Mapping[str, Any],
) -> _Failure | None:
  """Writes the metrics that are asked for; says why if they cannot be."""
  if not flags.metrics_file:
    return None
  try:
    metrics.write(
      flags.metrics_file,
      flags.command,
      status=status,
      seconds=console.seconds,
      result=result,
    )
  except errors.InputError as error:
    return _Failure(str(error), exit_status.ExitStatus.FAILED)
  return None


def _keep_config(flags: argparse.Namespace) -> _Failure | None:
  """Writes all flags beside what was made; says why if it cannot."""
  out = next(
    (path for name in _OUTPUTS if (path := getattr(flags, name, None))), None
  )
  if flags.command == 'project':
    out = flags.index
  if out is None or flags.resolved is None:
    return None
  name = f'{flags.command.replace(" ", "-")}.toml'
  try:
    is_file = file_identity.identify(out) is not None
    path = f'{out}.toml' if is_file else storage.join(out, name)
    with storage.open_for_writing(path) as file:
      file.write(tomli_w.dumps(flags.resolved).encode())
  except (OSError, errors.InputError) as error:
    return _failure(error)
  return None


def _failure(error: BaseException) -> _Failure | None:
  """What to tell of an error; None if it is a defect of ours."""
  if isinstance(error, KeyboardInterrupt):
    return _Failure(
      'interrupted; run the same command again to go on',
      exit_status.ExitStatus.INTERRUPTED,
    )
  if isinstance(error, OSError):
    place = f': {error.filename}' if error.filename else ''
    return _Failure(
      f'{error.strerror or error}{place}', exit_status.ExitStatus.FAILED
    )
  told = error_lines.expected_error(error)
  return told and _Failure(told.text, exit_status.of_error(told.kind))


def _tell(failure: _Failure, *, as_json: bool = False) -> int:
  line = ' '.join(failure.line.split())
  if as_json:
    console_lib.logger.error(line)
  else:
    print(f'influence: error: {line}', file=sys.stderr)
  if failure.status in _ENDING_AT_ONCE:
    sys.stderr.flush()
    os._exit(failure.status)
  return failure.status
