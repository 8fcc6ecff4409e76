"""The flags of `influence project` and `doctor`."""

import argparse
from typing import get_args

from influence_core import choices
from launch.flags import common as common_flags, engine as engine_flags
from pipeline.index import choices as index_choices


def add_project(parser: argparse.ArgumentParser) -> None:
  add_job(parser)
  engine_flags.add_engine(parser)
  common_flags.add_number(
    parser,
    '--stall_minutes',
    30.0,
    'fail when a worker on this machine takes longer for a batch',
  )
  common_flags.add_multi_process(parser)
  parser.epilog = (
    f'{parser.epilog}\n\nEverything after -- goes to Beam, instead of or '
    'besides what --engine stands for:\n'
    '--direct_running_mode=multi_processing, --job_endpoint=host:8099,\n'
    '--dask_client_address=tcp://host:8786, ...'
  )


def add_job(parser: argparse.ArgumentParser) -> None:
  """What is projected and how, wherever it runs."""
  common_flags.add_task(parser)
  parser.add_argument('--basis', required=True, help='from fit-basis')
  common_flags.add_index(parser)
  add_projection(parser)
  common_flags.add_number(
    parser, '--range_size', 4096, 'examples of a unit of work, at most'
  )
  common_flags.add_max_rejected_fraction(parser)
  parser.add_argument(
    '--vector_dtype',
    choices=get_args(index_choices.VectorDtype),
    default='float32',
    help=(
      'how projections are stored; bfloat16 halves and int8 quarters the '
      'index, and topk states the error of each score (default: %(default)s)'
    ),
  )


def add_doctor(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument(
    '--basis', help='from fit-basis (default: random vectors)'
  )
  common_flags.add_number(
    parser, '--projection_dim', 50, 'eigenpairs to plan for, without --basis'
  )
  common_flags.add_number(
    parser, '--num_examples', 256, 'examples to measure the rate on'
  )
  add_projection(parser)


def add_projection(parser: argparse.ArgumentParser) -> None:
  """The fields of `ProjectionOptions`."""
  parser.add_argument(
    '--batch_size',
    type=int,
    help='examples of a device call (default: as many as are useful and fit)',
  )
  common_flags.add_memory_budget(parser)
  parser.add_argument(
    '--basis_dtype',
    choices=get_args(choices.BasisDtype),
    default='float32',
    help='bfloat16 halves memory and traffic (default: %(default)s)',
  )
  parser.add_argument(
    '--basis_placement',
    choices=get_args(choices.BasisPlacement),
    default='auto',
    help=(
      'on every device, split over the local devices, or streamed from the '
      'host (default: the first that fits)'
    ),
  )
