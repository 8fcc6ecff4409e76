"""The flags of `influence topk` and `self-influence`."""

from launch.flags import (
  common as common_flags,
  engine as engine_flags,
  fields,
  project as project_flags,
)
from pipeline.search.request import SearchRequest
from pipeline.tasks.query_choice import QueryChoice


def add_topk(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  common_flags.add_indexes(parser)
  parser.add(fields.Group('queries', QueryChoice))
  common_flags.add_bases(parser)
  parser.add(project_flags.PROJECTION)
  parser.add(
    fields.Group(
      'request',
      SearchRequest,
      common_flags.SCORE_FLAGS,
      left_out=('excluded_ids',),
    )
  )
  parser.add_argument(
    '--tokens',
    action='store_true',
    help='also give the share of each token of the examples, and of the '
    'queries, in each score; they add up to it',
  )
  _add_out(parser, '.parquet, .csv, or a page to look at, .html')
  parser.add(engine_flags.EngineGroup(of_search=True))
  parser.epilog = (
    f'{parser.epilog}\n\nFor many queries, or an index far away, the search '
    'runs on Beam with --engine or with what\nfollows --, such as '
    '--direct_num_workers=2; the answer is the same.'
  )


def add_self_influence(parser: fields.CommandParser) -> None:
  common_flags.add_indexes(parser)
  common_flags.add_number(parser, '--k', 100, 'number of examples')
  parser.add(common_flags.SCORES)
  parser.add_argument(
    '--where',
    metavar='SQL',
    help='SQL condition: search only these, e.g. "label = 3 and length < 40"',
  )
  parser.add_argument(
    '--by_layer',
    action='store_true',
    help='also give the share of each layer in each score; they add up to it',
  )
  _add_out(parser, '.parquet or .csv')


def _add_out(parser: fields.CommandParser, formats: str) -> None:
  parser.add_argument(
    '--out', help=f'also write the result to this file, {formats}'
  )


def add_explore(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  common_flags.add_indexes(parser)
  common_flags.add_bases(parser)
  parser.add(project_flags.PROJECTION)
  parser.add_argument(
    '--host',
    default='127.0.0.1',
    help='address to listen on; any but this machine alone is told '
    '(default: %(default)s)',
  )
  parser.add_argument(
    '--port',
    type=int,
    default=0,
    metavar='N',
    help='port to listen on (default: one that is free)',
  )
