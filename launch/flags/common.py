"""Flags and their types that several commands share."""

import argparse
from typing import get_args

from influence_core import choices
from pipeline.index import choices as index_choices


def add_number(
  parser: argparse.ArgumentParser, name: str, default: int | float, text: str
) -> None:
  parser.add_argument(
    name,
    type=type(default),
    default=default,
    help=f'{text} (default: {default})',
  )


def add_task(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--task',
    required=True,
    metavar='MODULE:FUNCTION',
    help='import path of the function that makes the task',
  )
  parser.add_argument(
    '--task_arg',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='argument of that function; may be repeated',
  )


def add_max_rejected_fraction(parser: argparse.ArgumentParser) -> None:
  add_number(
    parser,
    '--max_rejected_fraction',
    index_choices.MAX_REJECTED_FRACTION,
    'fail when more examples are unusable',
  )


def add_index(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--index', required=True, help='directory of the index')


def add_score_options(parser: argparse.ArgumentParser) -> None:
  """The fields of `ScoreOptions`."""
  add_number(parser, '--damping', 0.0, 'added to every eigenvalue')
  parser.add_argument(
    '--negative_eigenvalues',
    choices=get_args(choices.NegativeEigenvalues),
    default='drop',
    help=(
      'leave their pairs out, take absolute values, or raise them to the '
      'smallest positive one, which weighs most (default: %(default)s)'
    ),
  )
  parser.add_argument(
    '--projection_dim', type=int, help='pairs to use (default: all)'
  )
  parser.add_argument(
    '--pair_choice',
    choices=get_args(choices.PairChoice),
    default='leading',
    help='which of them; random is a baseline (default: %(default)s)',
  )
  parser.add_argument(
    '--pair_seed', type=int, default=0, help='of random pairs (default: 0)'
  )
  parser.add_argument(
    '--normalization',
    choices=get_args(choices.Normalization),
    default='none',
    help='divide scores by norms (default: %(default)s)',
  )


def add_multi_process(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--multi_process',
    action='store_true',
    help='work together with the other processes of a pod, one on each host',
  )


def add_memory_budget(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--memory_budget',
    type=_num_bytes,
    metavar='SIZE',
    help='memory to use on each device, e.g. 12G (default: most of it)',
  )


def _num_bytes(text: str) -> int:
  """A number of bytes from '500M', '12G' or plain digits."""
  units = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
  number = text.upper().removesuffix('B').removesuffix('I')
  unit = units.get(number[-1:], 1)
  try:
    size = int(float(number[:-1] if unit > 1 else number) * unit)
  except (ValueError, OverflowError):
    size = 0
  if size <= 0:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no size; expected a number with K, M, G or T, such as 12G'
    )
  return size
