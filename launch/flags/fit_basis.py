"""The flags of `influence fit-basis`, `random-basis` and `query-basis`."""

import argparse
import dataclasses
from typing import Any, ClassVar

from launch.flags import common as common_flags, fields
from launch.flags.fields import Flag, Group
from pipeline.bases.fit_basis_config import FitBasisConfig, Resources
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.bases.random_basis_config import RandomBasisConfig


def add_fit_basis(parser: fields.CommandParser) -> None:
  _add_task_and_place(parser)
  auto = {'num_iterations': Flag(parse=_count_or_auto, metavar='N|auto')}
  parser.add(_MethodGroup('config', FitBasisConfig, auto))
  placement = {'placement': Flag('krylov_placement'), **common_flags.MEMORY}
  parser.add(Group('resources', Resources, placement))
  common_flags.add_multi_process(parser)


@dataclasses.dataclass(frozen=True)
class _MethodGroup(Group):
  """The flags of both methods, as the configuration of the one that is chosen.

  Those that both have are options of eigenpairs first.
  """

  _KRONECKER: ClassVar[Group] = Group(
    'config',
    KroneckerConfig,
    left_out=('sample_size', 'curvature', 'basis_dtype', 'seed'),
  )

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      '--method',
      choices=('arnoldi', 'kronecker'),
      default='arnoldi',
      help=(
        'eigenpairs of the whole curvature, or coordinates of each layer with '
        'the curvature inside, by second moments of gauss_newton gradients in '
        'place of the hessian (default: %(default)s)'
      ),
    )
    super().add_flags(parser)
    self._KRONECKER.add_flags(parser)

  def take(self, values: dict[str, Any]) -> FitBasisConfig | KroneckerConfig:
    method = values.pop('method')
    kronecker = self._KRONECKER.take(values)
    eigenpairs = super().take(values)
    if method == 'arnoldi':
      return eigenpairs
    curvature = eigenpairs.curvature
    return dataclasses.replace(
      kronecker,
      sample_size=eigenpairs.sample_size,
      curvature='gauss_newton' if curvature == 'hessian' else curvature,
      seed=eigenpairs.seed,
    )


def add_random_basis(parser: fields.CommandParser) -> None:
  _add_task_and_place(parser)
  parser.add(Group('config', RandomBasisConfig))
  common_flags.add_max_rejected_fraction(parser)


def add_query_basis(parser: fields.CommandParser) -> None:
  _add_task_and_place(parser)
  parser.add(Group('config', QueryBasisConfig, common_flags.DAMPING))
  common_flags.add_max_rejected_fraction(parser)


def _add_task_and_place(parser: fields.CommandParser) -> None:
  parser.add(common_flags.TASK)
  parser.add_argument('--out', required=True, help='path to store the basis at')
  parser.add_argument(
    '--parameter_paths',
    action='append',
    metavar='REGEX',
    help=(
      "regular expression of parameter paths to use instead of the task's; "
      "'!REGEX' leaves out; may be repeated; later commands use those of the "
      'basis'
    ),
  )


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
