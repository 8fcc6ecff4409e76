"""The flags of `influence project` and `doctor`."""

from typing import get_args

from influence_core.projection.options import ProjectionOptions
from launch.flags import (
  common as common_flags,
  engine as engine_flags,
  fields,
)
from pipeline.index import choices as index_choices

PROJECTION = fields.Group(
  'projection_options',
  ProjectionOptions,
  common_flags.MEMORY,
  left_out=('parameter_groups',),
)


def add_project(parser: fields.CommandParser) -> None:
  add_job(parser)
  engine_flags.EngineGroup().add_to(parser)
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


def add_job(parser: fields.CommandParser) -> None:
  """What is projected and how, wherever it runs."""
  common_flags.TASK.add_to(parser)
  parser.add_argument('--basis', required=True, help='from fit-basis')
  common_flags.add_index(parser)
  PROJECTION.add_to(parser)
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


def add_doctor(parser: fields.CommandParser) -> None:
  common_flags.TASK.add_to(parser)
  parser.add_argument(
    '--basis', help='from fit-basis (default: random vectors)'
  )
  common_flags.add_number(
    parser, '--projection_dim', 50, 'eigenpairs to plan for, without --basis'
  )
  common_flags.add_number(
    parser, '--num_examples', 256, 'examples to measure the rate on'
  )
  PROJECTION.add_to(parser)
