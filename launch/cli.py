"""The `influence` program: runs a command and tells its errors in one line."""

from collections.abc import Sequence
import importlib
import json
import os
import re
import sys
from typing import NoReturn

from influence_core import host_allocator
from launch import console as console_lib
from launch import error_lines, watchdog
from launch import flags as flags_lib


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command; returns the exit status, 0 only on success."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  host_allocator.keep_freed_memory()
  try:
    flags, values = flags_lib.parse(sys.argv[1:] if argv is None else argv)
    console_lib.configure_logging(verbose=flags.verbose)
    console = console_lib.Console(json_only=flags.json)
    module_name = re.sub('[- ]', '_', flags.command)
    module = importlib.import_module(f'launch.commands.{module_name}')
    # Importing Beam and TFDS can add handlers and levels of their own.
    console_lib.configure_logging(verbose=flags.verbose)
    result = module.run(console, **values)
  except KeyboardInterrupt:
    _leave('interrupted; run the same command again to go on', 130)
  except watchdog.StalledError as error:
    _leave(str(error), 1)
  except OSError as error:
    return _fail(f'{error.strerror or error}: {error.filename or "?"}', 1)
  except Exception as error:
    line = error_lines.expected_error(error)
    if line is None:
      raise
    return _fail(line, 1)
  if flags.json:
    print(json.dumps(result))
  return 0


def _leave(line: str, status: int) -> NoReturn:
  """Ends the process at once: Beam's threads can be stopped in no other way."""
  _fail(line, status)
  sys.stderr.flush()
  os._exit(status)


def _fail(line: str, status: int) -> int:
  print(f'influence: error: {" ".join(line.split())}', file=sys.stderr)
  return status
