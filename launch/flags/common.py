"""Flags and their types that several commands share."""

import argparse
import dataclasses
import re
from typing import Any, ClassVar

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.flags import fields
from pipeline.index import choices as index_choices
from pipeline.tasks.reference import TaskReference

_JOB_NAME = re.compile('[a-z]([-a-z0-9]{0,61}[a-z0-9])?')


def add_number(
  parser: argparse.ArgumentParser, name: str, default: int | float, text: str
) -> None:
  parser.add_argument(
    name,
    **fields.number(type(default)),
    default=default,
    help=f'{text} (default: {default})',
  )


@dataclasses.dataclass(frozen=True)
class TaskGroup:
  """--task with its arguments as one argument of the command.

  Attributes:
    of_index: whether an index knows it, so that it may be left out.
  """

  of_index: bool = False
  name: ClassVar[str] = 'task'

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    known = ' (default: that which each index was made with)'
    parser.add_argument(
      '--task',
      required=not self.of_index,
      metavar='MODULE:FUNCTION',
      help='import path of the function that makes the task'
      + self.of_index * known,
    )
    parser.add_argument(
      '--task_arg',
      action=fields.NamedValues,
      metavar='NAME=VALUE',
      help='argument of the task function; may be repeated',
    )

  def take(self, values: dict[str, Any]) -> TaskReference | None:
    path, arguments = values.pop('task'), values.pop('task_arg')
    if path is not None:
      task = TaskReference(path, arguments)
      return task.selecting(values.pop('parameter_paths', None))
    if arguments:
      raise errors.InputError(
        f'task_arg {next(iter(arguments))} is given without --task, whose '
        'argument it is; give both, or neither'
      )
    return None

  def as_flags(self, argument: TaskReference) -> dict[str, Any]:
    return {'task': argument.import_path, 'task_arg': argument.arguments}


def _damping(text: str) -> float | str:
  """A number, or one with x after it."""
  try:
    number = float(text.removesuffix('x'))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no damping; expected a number such as 0.01, or 0.1x'
    ) from None
  return text if text.endswith('x') else number


TASK = TaskGroup()
INDEX_TASK = TaskGroup(of_index=True)
DAMPING = {'damping': fields.Flag(parse=_damping, metavar='X|Xx')}
SCORE_FLAGS = {
  **DAMPING,
  'layers': fields.Flag(metavar='REGEX'),
}
SCORES = fields.Group('options', ScoreOptions, SCORE_FLAGS)


def check_job_name(name: str) -> None:
  """Raises `errors.InputError` unless clouds take a name for a job."""
  if not _JOB_NAME.fullmatch(name):
    raise errors.InputError(
      f'job_name is {name!r}, expected up to 63 of a-z, 0-9 and -, from a '
      'letter to no -'
    )


def add_max_rejected_fraction(parser: argparse.ArgumentParser) -> None:
  add_number(
    parser,
    '--max_rejected_fraction',
    index_choices.MAX_REJECTED_FRACTION,
    'fraction of the examples that may be unusable before the job fails',
  )


def add_query_split(parser: argparse.ArgumentParser, example: str) -> None:
  parser.add_argument(
    '--query_split',
    required=True,
    help=f"TFDS split of the queries, e.g. '{example}'",
  )


def add_index(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--index', required=True, help='path of the index')


def add_indexes(parser: argparse.ArgumentParser) -> None:
  """--index of one or several, whose scores are added, with --scale."""
  parser.add_argument(
    '--index',
    required=True,
    nargs='+',
    action='extend',
    dest='indexes',
    metavar='PATH',
    help='path of the index; of several, of one corpus, scores are added',
  )
  add_scale(parser)


def add_bases(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--basis',
    nargs='+',
    dest='bases',
    metavar='PATH',
    help='path of the basis of each index, if it is no longer where it was',
  )


def add_scale(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--scale',
    nargs='+',
    type=float,
    dest='scales',
    metavar='X',
    help=(
      'of several indexes: number for each that its scores are multiplied by '
      '(default: one over how many there are, for their mean)'
    ),
  )


def add_multi_process(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--multi_process',
    action='store_true',
    help='work together with the other processes of a pod, one on each host',
  )


def _num_bytes(text: str) -> int:
  """A number of bytes from '500M', '12G' or plain digits."""
  units = {'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
  number = text.upper().removesuffix('B').removesuffix('I')
  unit = units.get(number[-1:], 1)
  try:
    size = int(float(number[:-1] if unit > 1 else number) * unit)
  except (ValueError, OverflowError):
    size = 0
  if size <= 0:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no size; expected a number with K, M, G or T, such as 12G'
    )
  return size


# Memory is given with units, and so without them in the name.
MEMORY = {
  'memory_budget_bytes': fields.Flag('memory_budget', _num_bytes, 'SIZE')
}
