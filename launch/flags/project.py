"""The flags of `influence project`, `doctor` and `estimate`."""

from typing import get_args

from influence_core.projection.options import ProjectionOptions
from launch.flags import (
  common as common_flags,
  engine as engine_flags,
  fields,
)
from pipeline.index import choices as index_choices
from pipeline.projection.request import ProjectionRequest

PROJECTION = fields.Group(
  'projection_options',
  ProjectionOptions,
  common_flags.MEMORY,
  left_out=('parameter_groups',),
)
# What is projected and how, wherever it runs.
REQUEST = fields.Group(
  'request',
  ProjectionRequest,
  parts={'task': common_flags.TASK, 'options': PROJECTION},
)


def add_project(parser: fields.CommandParser) -> None:
  parser.add(REQUEST)
  parser.add(engine_flags.EngineGroup())
  common_flags.add_number(
    parser,
    '--stall_minutes',
    30.0,
    'minutes a worker on this machine may take for a batch before this fails',
  )
  common_flags.add_multi_process(parser)
  parser.epilog = (
    f'{parser.epilog}\n\nEverything after -- goes to Beam, instead of or '
    'besides what --engine stands for:\n'
    '--direct_running_mode=multi_processing, --job_endpoint=host:8099,\n'
    '--dask_client_address=tcp://host:8786, ...'
  )


def _add_trial(
  parser: fields.CommandParser, task: common_flags.TaskGroup
) -> None:
  """The task and what it is projected on, to be tried."""
  parser.add(task)
  parser.add_argument(
    '--basis', help='path of a basis (default: random directions)'
  )
  common_flags.add_number(
    parser,
    '--coordinates_per_layer',
    256,
    'number of coordinates of a layer to plan for, without --basis',
  )


def add_doctor(parser: fields.CommandParser) -> None:
  _add_trial(parser, common_flags.TASK)
  parser.add_argument(
    '--projection_dim',
    type=int,
    metavar='N',
    help='number of eigenpairs to plan for instead',
  )
  common_flags.add_number(
    parser, '--num_examples', 256, 'number of examples to measure the rate on'
  )
  parser.add(PROJECTION)


def add_estimate(parser: fields.CommandParser) -> None:
  _add_trial(parser, common_flags.INDEX_TASK)
  common_flags.add_number(
    parser,
    '--num_ranges',
    3,
    'number of ranges to time; more where they take a moment only',
  )
  common_flags.add_number(
    parser, '--range_size', 4096, 'number of examples of a range'
  )
  for name, default, text in (
    ('--num_workers', [1, 100], 'numbers of workers to plan for'),
    ('--examples', [], 'numbers of examples, besides those of the corpus'),
  ):
    parser.add_argument(
      name, nargs='+', type=int, metavar='N', default=default, help=text
    )
  parser.add_argument(
    '--vector_dtype',
    choices=get_args(index_choices.VectorDtype),
    default='float32',
    help='dtype of stored projections (default: %(default)s)',
  )
  parser.add_argument(
    '--prices', metavar='FILE', help='TOML file with prices, for costs'
  )
  common_flags.add_number(
    parser,
    '--preemptions_per_hour',
    0.0,
    'how often each worker is taken away; the run is played through',
  )
  parser.add_argument(
    '--print_prices',
    action='store_true',
    help='print such a file to fill in, and do nothing else',
  )
  parser.add_argument(
    '--index',
    help='index whose task and basis are meant where none are given; the '
    'estimate is kept there, for influence runs',
  )
  parser.add(PROJECTION)
