"""The flags of `influence topk` and `self-influence`."""

import argparse

from launch.flags import (
  common as common_flags,
  engine as engine_flags,
  project as project_flags,
)


def add_topk(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  common_flags.add_index(parser)
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:100]'"
  )
  _add_k(parser, 10)
  parser.add_argument(
    '--basis', help='default: where it was when the index was made'
  )
  project_flags.add_projection(parser)
  _add_scores(parser)
  parser.add_argument(
    '--group_by',
    metavar='COLUMN',
    help='find --k examples for each value of a column',
  )
  parser.add_argument(
    '--exclude_self',
    action='store_true',
    help='do not find a query that is a training example itself',
  )
  parser.add_argument(
    '--certify',
    action='store_true',
    help=(
      'of an index in bfloat16 or int8: project candidates again until the '
      'answer is that of float32 for certain'
    ),
  )
  engine_flags.add_engine(parser, of_search=True)
  parser.epilog = (
    f'{parser.epilog}\n\nFor many queries, or an index far away, the search '
    'runs on Beam with --engine or with what\nfollows --, such as '
    '--direct_num_workers=2; the answer is the same.'
  )


def add_self_influence(parser: argparse.ArgumentParser) -> None:
  common_flags.add_index(parser)
  _add_k(parser, 100)
  _add_scores(parser)


def _add_scores(parser: argparse.ArgumentParser) -> None:
  common_flags.add_score_options(parser)
  parser.add_argument(
    '--where',
    metavar='SQL',
    help='search only these examples, e.g. "label = 3 and length < 40"',
  )
  parser.add_argument(
    '--out', help='also write the result to this file, .parquet or .csv'
  )


def _add_k(parser: argparse.ArgumentParser, default: int) -> None:
  common_flags.add_number(parser, '--k', default, 'examples wanted')
