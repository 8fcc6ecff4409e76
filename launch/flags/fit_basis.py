"""The flags of `influence fit-basis`, `random-basis` and `query-basis`."""

import argparse
import dataclasses
from typing import Any, ClassVar

from influence_core import errors
from launch.flags import common as common_flags, fields
from launch.flags.fields import Flag, Group
from pipeline.bases.fit_basis_config import FitBasisConfig, Resources
from pipeline.bases.kronecker_config import KroneckerConfig
from pipeline.bases.query_basis_config import QueryBasisConfig
from pipeline.bases.random_basis_config import RandomBasisConfig


def add_fit_basis(parser: fields.CommandParser) -> None:
  _add_task_and_place(parser)
  auto = {'num_iterations': Flag(parse=_count_or_auto, metavar='N|auto')}
  parser.add(_MethodGroup('config', FitBasisConfig, auto, only_given=True))
  placement = {'placement': Flag('krylov_placement'), **common_flags.MEMORY}
  parser.add(Group('resources', Resources, placement))
  common_flags.add_multi_process(parser)


# Of both methods: options of eigenpairs, whose descriptions suit both.
_SHARED = ('sample_size', 'curvature', 'basis_dtype', 'seed')


@dataclasses.dataclass(frozen=True)
class _MethodGroup(Group):
  """The flags of both methods, as the configuration of one.

  The method that is not named is that whose own options are given.
  """

  _KRONECKER: ClassVar[Group] = Group(
    'config', KroneckerConfig, left_out=_SHARED, only_given=True
  )

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
      '--method',
      choices=('kronecker', 'arnoldi'),
      help=(
        'a few coordinates of the gradient of each layer, with the curvature '
        'inside (kronecker), or eigenpairs of the whole curvature by Arnoldi '
        'iteration (default: arnoldi where one of its own options such as '
        '--projection_dim is given, else kronecker)'
      ),
    )
    super().add_flags(parser)
    self._KRONECKER.add_flags(parser)

  def take(self, values: dict[str, Any]) -> FitBasisConfig | KroneckerConfig:
    method = values.pop('method')
    of_eigenpairs = [x for x in self.given(values) if x not in _SHARED]
    of_layers = self._KRONECKER.given(values)
    if method is None:
      method = 'arnoldi' if of_eigenpairs else 'kronecker'
    shared = {name: values[name] for name in _SHARED if name in values}
    eigenpairs = super().take(values)
    layers = self._KRONECKER.take(values)
    foreign = of_layers if method == 'arnoldi' else of_eigenpairs
    if foreign:
      raise errors.InputError(
        f'--{foreign[0]} is no option of --method {method}; leave it out or '
        'choose the other method'
      )
    if method == 'arnoldi':
      return eigenpairs
    if shared.get('curvature') == 'hessian':
      raise errors.InputError(
        "curvature is 'hessian', expected gauss_newton or empirical_fisher for "
        '--method kronecker, which has the Hessian by --inside hessian'
      )
    return dataclasses.replace(layers, **shared)


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
