"""The flags of each command of the `influence` command line."""

import argparse
from typing import Any, get_args

from influence_core import device_memory, gradient_projection, influence_scores
from launch import common_flags, fit_basis_flags
from pipeline import export, vector_codec

_TASK_EXAMPLE = (
  '--task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W'
)


def _add_demo(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--out', default='influence_demo', help='directory (default: %(default)s)'
  )


def _add_train_example(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'example', choices=('mnist_cnn', 'digits_cnn'), help='what to train'
  )
  parser.add_argument(
    '--workdir', required=True, help='where the model is stored'
  )
  parser.add_argument(
    '--data_dir',
    help='TFDS directory of the prepared dataset; digits_cnn makes its own',
  )
  parser.add_argument(
    '--flip_labels',
    type=float,
    default=0.0,
    metavar='FRACTION',
    help='training labels to make wrong (default: %(default)s)',
  )
  parser.add_argument(
    '--num_epochs', type=int, help='default: what suits the example'
  )
  parser.add_argument('--seed', type=int, default=0)


def _add_project(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument('--basis', required=True, help='from fit-basis')
  _add_index(parser)
  common_flags.add_number(parser, '--num_workers', 2, 'workers on this machine')
  _add_projection(parser)
  common_flags.add_number(
    parser, '--range_size', 4096, 'examples of a unit of work, at most'
  )
  common_flags.add_number(
    parser,
    '--max_rejected_fraction',
    0.001,
    'fail when more examples are unusable',
  )
  parser.add_argument(
    '--vector_dtype',
    choices=get_args(vector_codec.VectorDtype),
    default='float32',
    help=(
      'how projections are stored; bfloat16 halves and int8 quarters the '
      'index, and topk states the error of each score (default: %(default)s)'
    ),
  )
  parser.epilog = (
    f'{parser.epilog}\n\nEverything after -- goes to Beam, for instance '
    '--runner=DataflowRunner\nor --direct_running_mode=multi_processing.'
  )


def _add_topk(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  _add_index(parser)
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:100]'"
  )
  _add_k(parser, 10)
  parser.add_argument(
    '--basis', help='default: where it was when the index was made'
  )
  _add_projection(parser)
  _add_scores(parser)
  parser.add_argument(
    '--where',
    metavar='SQL',
    help='search only these examples, e.g. "label = 3 and length < 40"',
  )
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
  parser.epilog = (
    f'{parser.epilog}\n\nFor many queries, or an index far away, the search '
    'runs on Beam with what follows --,\nfor instance '
    '--direct_num_workers=2 or --runner=DataflowRunner; the answer is the same.'
  )


def _add_doctor(parser: argparse.ArgumentParser) -> None:
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
  _add_projection(parser)


def _add_self_influence(parser: argparse.ArgumentParser) -> None:
  _add_index(parser)
  _add_k(parser, 100)
  _add_scores(parser)


def _add_describe(parser: argparse.ArgumentParser) -> None:
  group = parser.add_mutually_exclusive_group(required=True)
  group.add_argument('--basis', help='a basis from fit-basis')
  group.add_argument('--index', help='an index from project')


def _add_export(parser: argparse.ArgumentParser) -> None:
  _add_index(parser)
  parser.add_argument('--out', required=True, help='the file to write')
  parser.add_argument(
    '--format',
    dest='file_format',
    choices=get_args(export.Format),
    default='parquet',
    help=(
      'rows with a list column, plain projections, or an inner-product index '
      '(default: %(default)s)'
    ),
  )
  _add_score_options(parser)


def _add_diff(parser: argparse.ArgumentParser) -> None:
  _add_index(parser)
  parser.add_argument(
    '--old', type=int, help='a generation (default: the one before --new)'
  )
  parser.add_argument(
    '--new', type=int, help='a generation (default: the newest)'
  )
  _add_score_options(parser)


def _add_rollback(parser: argparse.ArgumentParser) -> None:
  _add_index(parser)
  parser.add_argument(
    '--generation', type=int, required=True, help='the one to go back to'
  )


def _add_gc(parser: argparse.ArgumentParser) -> None:
  _add_index(parser)
  common_flags.add_number(parser, '--keep', 1, 'newest generations to keep')
  common_flags.add_number(
    parser,
    '--grace_hours',
    72.0,
    'keep also what was written or superseded so recently; longer than any '
    'query or project takes',
  )
  parser.add_argument(
    '--dry_run', action='store_true', help='only say what would be deleted'
  )


def _add_index(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--index', required=True, help='directory of the index')


def _add_k(parser: argparse.ArgumentParser, default: int) -> None:
  common_flags.add_number(parser, '--k', default, 'examples wanted')


def _add_projection(parser: argparse.ArgumentParser) -> None:
  """The fields of `ProjectionOptions`."""
  parser.add_argument(
    '--batch_size',
    type=int,
    help='examples of a device call (default: as many as are useful and fit)',
  )
  common_flags.add_memory_budget(parser)
  parser.add_argument(
    '--basis_dtype',
    choices=get_args(gradient_projection.BasisDtype),
    default='float32',
    help='bfloat16 halves memory and traffic (default: %(default)s)',
  )
  parser.add_argument(
    '--basis_placement',
    choices=get_args(device_memory.Placement),
    default='auto',
    help=(
      'on every device, split over the local devices, or streamed from the '
      'host (default: the first that fits)'
    ),
  )


def _add_scores(parser: argparse.ArgumentParser) -> None:
  _add_score_options(parser)
  parser.add_argument('--out', help='also write the result here, as Parquet')


def _add_score_options(parser: argparse.ArgumentParser) -> None:
  """The fields of `ScoreOptions`."""
  common_flags.add_number(parser, '--damping', 0.0, 'added to every eigenvalue')
  parser.add_argument(
    '--negative_eigenvalues',
    choices=get_args(influence_scores.NegativeEigenvalues),
    default='drop',
    help='what to do with them (default: %(default)s)',
  )
  parser.add_argument(
    '--projection_dim', type=int, help='leading pairs to use (default: all)'
  )
  parser.add_argument(
    '--normalization',
    choices=get_args(influence_scores.Normalization),
    default='none',
    help='divide scores by norms (default: %(default)s)',
  )


COMMANDS: dict[str, tuple[Any, str, str]] = {
  'demo': (
    _add_demo,
    'finds the wrong labels among 1,797 handwritten digits, all stages',
    '--out influence_demo',
  ),
  'train-example': (
    _add_train_example,
    'trains a model to try the other commands on',
    'mnist_cnn --workdir W --data_dir D --flip_labels 0.1',
  ),
  'fit-basis': (
    fit_basis_flags.add_fit_basis,
    'fits the leading eigenpairs of the Hessian',
    f'{_TASK_EXAMPLE} --out W/basis --projection_dim 50',
  ),
  'project': (
    _add_project,
    'projects the gradient of every training example and stores an index',
    f'{_TASK_EXAMPLE} --basis W/basis --index W/index',
  ),
  'topk': (
    _add_topk,
    'finds proponents and opponents of queries in an index',
    f"{_TASK_EXAMPLE} --index W/index --query_split 'test[:100]' --k 10",
  ),
  'self-influence': (
    _add_self_influence,
    'finds mislabelled and atypical training examples in an index',
    '--index W/index --k 100',
  ),
  'doctor': (
    _add_doctor,
    'checks a task and states memory, batch size and expected rate',
    f'{_TASK_EXAMPLE} --projection_dim 50',
  ),
  'generations': (
    _add_index,
    'lists the published states of an index',
    '--index W/index',
  ),
  'diff': (
    _add_diff,
    'shows what changed between two generations of an index',
    '--index W/index --old 1 --new 2',
  ),
  'rollback': (
    _add_rollback,
    'publishes an older generation again, as the newest',
    '--index W/index --generation 1',
  ),
  'gc': (
    _add_gc,
    'deletes generations and files that no reader needs',
    '--index W/index --dry_run',
  ),
  'export': (
    _add_export,
    'writes an index as one file for pandas, Polars, DuckDB, numpy or FAISS',
    '--index W/index --format parquet --out W/index.parquet',
  ),
  'verify': (
    _add_index,
    'reads every byte of an index and checks it',
    '--index W/index',
  ),
  'describe': (
    _add_describe,
    'shows what a basis or an index is, and how good',
    '--basis W/basis',
  ),
}
