"""The flags of `influence evaluate`."""

import argparse

from launch import common_flags


def add_detection(parser: argparse.ArgumentParser) -> None:
  common_flags.add_index(parser)
  parser.add_argument(
    '--bad',
    required=True,
    metavar='SQL',
    help='condition on the columns of the rows, e.g. "label <> true_label"',
  )
  common_flags.add_number(
    parser, '--num_first', 100, 'examples that somebody would look at'
  )
  common_flags.add_number(
    parser, '--num_bootstrap', 100, 'resamplings for 95 % intervals'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', help='directory for JSON, Parquet and a plot')
  common_flags.add_score_options(parser)
