"""The flags of the commands about an index that is there."""

from typing import get_args

from launch.flags import common as common_flags, fields
from pipeline.index import choices as index_choices


def add_describe(parser: fields.CommandParser) -> None:
  group = parser.add_mutually_exclusive_group(required=True)
  group.add_argument('--basis', help='path of a basis')
  group.add_argument('--index', help='path of an index')


def add_export(parser: fields.CommandParser) -> None:
  common_flags.add_index(parser)
  parser.add_argument('--out', required=True, help='the file to write')
  parser.add_argument(
    '--format',
    dest='file_format',
    choices=get_args(index_choices.ExportFormat),
    help=(
      'file format: rows with a list column, plain projections, or an '
      'inner-product index (default: what the name of the file ends in)'
    ),
  )
  parser.add(common_flags.SCORES)


def add_diff(parser: fields.CommandParser) -> None:
  common_flags.add_index(parser)
  parser.add_argument(
    '--old', type=int, help='older generation (default: the one before --new)'
  )
  parser.add_argument(
    '--new', type=int, help='newer generation (default: the newest)'
  )
  parser.add(common_flags.SCORES)


def add_rollback(parser: fields.CommandParser) -> None:
  common_flags.add_index(parser)
  parser.add_argument(
    '--generation', type=int, required=True, help='generation to go back to'
  )


def add_gc(parser: fields.CommandParser) -> None:
  common_flags.add_index(parser)
  common_flags.add_number(
    parser, '--keep', 1, 'number of newest generations to keep'
  )
  common_flags.add_number(
    parser,
    '--grace_hours',
    72.0,
    'hours for which what was written or superseded is kept, too; longer than '
    'any query or projection takes',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='only say what would be deleted'
  )


def add_runs(parser: fields.CommandParser) -> None:
  common_flags.add_index(parser)
