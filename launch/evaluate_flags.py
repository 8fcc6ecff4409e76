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
    parser, '--num_bootstrap', 100, 'resamplings for 95 %% intervals'
  )
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--out', help='directory for JSON, Parquet and a plot')
  common_flags.add_score_options(parser)


def add_lds(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument(
    '--index',
    required=True,
    action='append',
    dest='indexes',
    help='of the same task; may be repeated, to compare bases',
  )
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:50]'"
  )
  common_flags.add_number(
    parser, '--num_subsets', 50, 'random parts of the corpus to train on'
  )
  common_flags.add_number(parser, '--fraction', 0.5, 'of the corpus, in each')
  _add_retraining(parser)
  common_flags.add_score_options(parser)


def add_counterfactual(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  common_flags.add_index(parser)
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:20]'"
  )
  common_flags.add_number(
    parser, '--k', 50, 'proponents that are left out, for each query'
  )
  _add_retraining(parser)
  common_flags.add_score_options(parser)


def _add_retraining(parser: argparse.ArgumentParser) -> None:
  common_flags.add_number(
    parser, '--num_repeats', 1, 'trainings on each part, averaged'
  )
  common_flags.add_number(parser, '--num_workers', 2, 'trainings at a time')
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument(
    '--out',
    required=True,
    help='directory for results and losses, which are kept for other runs',
  )
