"""The `influence` program: parses a command line and hands it over.

What takes long to import is imported when a command runs, so that --help and
mistakes in flags are answered at once.
"""

from collections.abc import Sequence
import os
import sys

from influence_core import errors
from launch.flags import parser
from launch.output import exit_status


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command; returns the exit status, 0 only on success."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  try:
    flags, values = parser.parse(sys.argv[1:] if argv is None else argv)
  except errors.InputError as error:
    print(f'influence: error: {error}', file=sys.stderr)
    return exit_status.ExitStatus.FAILED
  if getattr(flags, 'print_config', False):
    import tomli_w

    print(tomli_w.dumps(flags.resolved), end='')
    return exit_status.ExitStatus.DONE
  from launch.running import program

  return program.run(flags, values)
