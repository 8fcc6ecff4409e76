"""The flags of `influence reindex` and `schedule`."""

import argparse

from launch import exit_status


def add_reindex(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--config',
    required=True,
    help='TOML file, local or gs://: task, basis, index and what else is to do',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nIt fits the basis again where the model changed '
    '(refit_basis), projects what changed,\nverifies, collects garbage and '
    f'announces.\n\nexit status:\n{exit_status.table()}'
  )
