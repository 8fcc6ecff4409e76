"""The flags of `influence evaluate`."""

from typing import get_args

from launch.flags import common as common_flags, fields, sensitivity
from pipeline.evaluation.options import Baseline, Design, Retraining

_DESIGN = fields.Group('design', Design)
_RETRAINING = fields.Group('retraining', Retraining)


def add_detection(parser: fields.CommandParser) -> None:
  common_flags.add_indexes(parser)
  parser.add_argument(
    '--bad',
    required=True,
    metavar='SQL',
    help='SQL condition that bad examples meet, e.g. "label <> true_label"',
  )
  parser.add_argument(
    '--where',
    metavar='SQL',
    help='SQL condition: rank only these rows (default: all)',
  )
  common_flags.add_number(
    parser,
    '--num_first',
    100,
    'number of first examples to measure precision on',
  )
  common_flags.add_number(
    parser, '--num_bootstrap', 100, 'number of resamplings for 95 %% intervals'
  )
  _add_results(parser, 'JSON, Parquet and a plot')


def add_lds(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  _add_indexes(parser)
  _add_baselines(parser)
  parser.add_argument(
    '--against',
    metavar='NAME_OR_INDEX',
    help=(
      'baseline or index to compare the others with: of each, the difference '
      'of the scores with its 95 %% interval, query by query'
    ),
  )
  common_flags.add_query_split(parser, 'test[:50]')
  parser.add(_DESIGN)
  _add_retraining(parser)


def add_counterfactual(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  common_flags.add_indexes(parser)
  _add_baselines(parser)
  common_flags.add_query_split(parser, 'test[:20]')
  common_flags.add_number(
    parser, '--k', 50, 'number of proponents to leave out for each query'
  )
  common_flags.add_number(parser, '--seed', 0, 'random seed')
  _add_retraining(parser)


def add_retrieval(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  common_flags.add_indexes(parser)
  _add_baselines(parser)
  common_flags.add_query_split(parser, 'test[:50]')
  parser.add_argument(
    '--relevant',
    required=True,
    metavar='SQL',
    help=(
      'SQL condition that examples to be found meet, with columns of the query '
      'prefixed query_, e.g. "label = query_label" or "id = query_id"'
    ),
  )
  parser.add_argument(
    '--where',
    metavar='SQL',
    help='SQL condition: rank only these examples',
  )
  parser.add_argument(
    '--kind',
    choices=('proponents', 'opponents'),
    default='proponents',
    help='end of the ranking to measure (default: %(default)s)',
  )
  common_flags.add_number(
    parser,
    '--k',
    10,
    'number of first examples to measure precision and recall on',
  )
  _add_results(parser, 'JSON and Parquet')


def add_agreement(parser: fields.CommandParser) -> None:
  parser.add(common_flags.INDEX_TASK)
  _add_indexes(parser)
  _add_baselines(parser)
  parser.add_argument(
    '--reference',
    required=True,
    metavar='INDEX',
    help='index to compare with, e.g. on a basis of query-basis --method exact',
  )
  common_flags.add_query_split(parser, 'test[:50]')
  common_flags.add_number(parser, '--k', 10, 'number of proponents to compare')
  _add_results(parser, 'JSON and Parquet')


def add_sensitivity(parser: fields.CommandParser) -> None:
  parser.add(common_flags.TASK)
  parser.add_argument(
    '--knob',
    dest='knobs',
    action=fields.NamedValues,
    metavar='NAME=VALUE,VALUE,...',
    help=(
      'option of fit-basis or topk to vary, or parameter_paths; may be '
      'repeated (default: '
      + '; '.join(
        f'{name}={",".join(values)}'
        for name, values in sensitivity.DEFAULT_KNOBS.items()
      )
      + ')'
    ),
  )
  parser.add_argument(
    '--fixed',
    action=fields.NamedValues,
    metavar='NAME=VALUE',
    help=(
      'what an option has while others are varied, if not its default; '
      'projection_dim is that of the basis; may be repeated'
    ),
  )
  parser.add_argument(
    '--query_split',
    help='TFDS split, to measure the linear datamodelling score',
  )
  parser.add_argument(
    '--bad',
    metavar='SQL',
    help='SQL condition on the rows, to measure detection',
  )
  parser.add(_DESIGN)
  parser.add(_RETRAINING)
  parser.add_argument(
    '--out',
    required=True,
    help='directory for results, bases and indexes, kept for other runs',
  )


def _add_results(parser: fields.CommandParser, files: str) -> None:
  common_flags.add_number(parser, '--seed', 0, 'random seed')
  parser.add_argument('--out', help=f'directory for {files}')
  parser.add(common_flags.SCORES)


def _add_indexes(parser: fields.CommandParser) -> None:
  parser.add_argument(
    '--index',
    required=True,
    nargs='+',
    action='append',
    dest='indexes',
    metavar='PATH',
    help=(
      'path of an index, or of several as an ensemble, whose scores are added; '
      'may be repeated, to compare those of one corpus'
    ),
  )
  common_flags.add_scale(parser)


def _add_baselines(parser: fields.CommandParser) -> None:
  parser.add_argument(
    '--baseline',
    action='append',
    default=[],
    dest='baselines',
    choices=get_args(Baseline),
    help=(
      'what to measure beside influence, may be repeated: loss and '
      'gradient_norm of the training example, embedding, the cosine of what '
      'enters the last layer, or bm25, the words that texts share'
    ),
  )


def _add_retraining(parser: fields.CommandParser) -> None:
  parser.add(_RETRAINING)
  parser.add_argument(
    '--out',
    required=True,
    help='directory for results and losses, which are kept for other runs',
  )
  parser.add(common_flags.SCORES)
