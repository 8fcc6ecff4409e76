"""The flags of `influence fit-basis`, `random-basis` and `query-basis`."""

import argparse
from typing import get_args

from influence_core import choices
from launch.flags import common as common_flags
from pipeline.bases import fit_basis_config


def add_fit_basis(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument('--out', required=True, help='where the basis is stored')
  common_flags.add_number(parser, '--projection_dim', 50, 'eigenpairs to keep')
  parser.add_argument(
    '--num_iterations',
    type=_count_or_auto,
    default=100,
    metavar='N|auto',
    help=(
      'Arnoldi steps, about twice projection_dim, or auto: until all pairs '
      'have a residual up to --tolerance (default: 100)'
    ),
  )
  common_flags.add_number(
    parser, '--tolerance', 0.1, 'residual of a pair to rely on'
  )
  common_flags.add_number(
    parser, '--sample_size', 4096, 'random examples the curvature is taken over'
  )
  common_flags.add_max_rejected_fraction(parser)
  parser.add_argument(
    '--curvature',
    choices=get_args(choices.Curvature),
    default='hessian',
    help='which matrix; gauss_newton needs split_loss (default: %(default)s)',
  )
  parser.add_argument(
    '--keep_negative',
    action='store_true',
    help='keep pairs with negative eigenvalues too',
  )
  _add_parameter_paths(parser)
  common_flags.add_number(
    parser, '--num_trace_probes', 8, 'products spent on the trace; 0 for none'
  )
  parser.add_argument(
    '--check_sample',
    action='store_true',
    help='compare with a basis of other examples; takes four times as long',
  )
  parser.add_argument('--seed', type=int, default=0)
  _add_krylov(parser)


def add_random_basis(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument('--out', required=True, help='where the basis is stored')
  common_flags.add_number(parser, '--projection_dim', 50, 'vectors')
  parser.add_argument(
    '--method',
    choices=get_args(choices.RandomMethod),
    default='random_gram',
    help=(
      'random for inner products of gradients, random_gram to weight them by '
      'the inverse Gram matrix, as TRAK (default: %(default)s)'
    ),
  )
  common_flags.add_number(
    parser, '--sample_size', 4096, 'random examples of the Gram matrix'
  )
  common_flags.add_max_rejected_fraction(parser)
  _add_basis_dtype(parser)
  parser.add_argument('--seed', type=int, default=0)
  _add_parameter_paths(parser)


def add_query_basis(parser: argparse.ArgumentParser) -> None:
  common_flags.add_task(parser)
  parser.add_argument('--out', required=True, help='where the basis is stored')
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:50]'"
  )
  parser.add_argument(
    '--method',
    choices=get_args(choices.QueryMethod),
    default='cg',
    help=(
      'what stands for the inverse curvature: nothing (gradient), conjugate '
      'gradients, LiSSA, the explicit matrix, EK-FAC (default: %(default)s)'
    ),
  )
  parser.add_argument(
    '--curvature',
    choices=get_args(choices.Curvature),
    default='gauss_newton',
    help='which matrix; gauss_newton needs split_loss (default: %(default)s)',
  )
  parser.add_argument(
    '--damping',
    type=float,
    help=(
      'added to every eigenvalue (default: 0; of ekfac, a tenth of the mean '
      'of each parameter)'
    ),
  )
  common_flags.add_number(
    parser, '--num_products', 100, 'most products for a query, of cg and lissa'
  )
  common_flags.add_number(
    parser, '--tolerance', 1e-3, 'residual at which cg stops'
  )
  parser.add_argument(
    '--scale',
    type=float,
    help='what lissa divides the curvature by (default: found)',
  )
  common_flags.add_number(
    parser, '--microbatch_size', 64, 'examples of a product of lissa'
  )
  common_flags.add_number(
    parser, '--sample_size', 4096, 'random examples the curvature is taken over'
  )
  common_flags.add_max_rejected_fraction(parser)
  _add_basis_dtype(parser)
  parser.add_argument('--seed', type=int, default=0)
  _add_parameter_paths(parser)


def _add_basis_dtype(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--basis_dtype',
    choices=get_args(choices.BasisDtype),
    default='float32',
    help='of stored vectors (default: %(default)s)',
  )


def _add_parameter_paths(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--parameter_paths',
    action='append',
    metavar='REGEX',
    help=(
      "parameters to use instead of the task's, by their paths; '!REGEX' "
      'leaves out; may be repeated; later commands follow the basis'
    ),
  )


def _add_krylov(parser: argparse.ArgumentParser) -> None:
  """Where Krylov vectors go, and on how many machines."""
  parser.add_argument(
    '--krylov_dtype',
    choices=get_args(choices.BasisDtype),
    default='float32',
    help=(
      'of Krylov vectors; bfloat16 halves memory and disk (default: '
      '%(default)s)'
    ),
  )
  _add_basis_dtype(parser)
  parser.add_argument(
    '--max_vectors',
    type=int,
    help='Krylov vectors kept at a time, by thick restarts (default: all)',
  )
  parser.add_argument(
    '--krylov_placement',
    choices=get_args(fit_basis_config.KrylovPlacement),
    default='auto',
    help='where they are kept (default: the first that they fit)',
  )
  parser.add_argument(
    '--work_dir',
    help='where they are made durable (default: krylov in --out)',
  )
  parser.add_argument(
    '--microbatch_size',
    type=int,
    help='examples at a time on each device (default: as many as fit)',
  )
  common_flags.add_memory_budget(parser)
  parser.add_argument(
    '--parameter_placement',
    choices=get_args(choices.ParameterPlacement),
    default='replicated',
    help=(
      'parameters on every device, or a part of each on every device, for '
      'models that do not fit one (default: %(default)s)'
    ),
  )
  common_flags.add_multi_process(parser)


def _count_or_auto(text: str) -> int | None:
  """A number, or None for 'auto'."""
  if text == 'auto':
    return None
  try:
    return int(text)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is no number; expected one, or 'auto'"
    ) from None
