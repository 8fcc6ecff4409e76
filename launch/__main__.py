"""`python -m launch` is the same program as `influence`."""

import sys

from launch import cli

if __name__ == '__main__':
  sys.exit(cli.main())
