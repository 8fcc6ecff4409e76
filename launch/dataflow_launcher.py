"""What the container of a flex template runs: `influence submit dataflow`."""

import sys

from launch import cli
from launch.cloud import flex_template


def main() -> int:
  """Submits the job that the parameters of the template describe."""
  return cli.main(flex_template.command_line(sys.argv[1:]))


if __name__ == '__main__':
  sys.exit(main())
