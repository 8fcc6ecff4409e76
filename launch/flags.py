"""All flags of the `influence` command line."""

import argparse
from collections.abc import Sequence
import difflib
from typing import Any, NoReturn, get_args

from influence_core import influence_scores
from pipeline import task as task_lib

_TASK_EXAMPLE = (
  '--task launch.example_tasks.mnist_cnn:make_task --task_arg workdir=W'
)


class _Parser(argparse.ArgumentParser):
  """Tells an error in one line, with the flag that may have been meant."""

  def __init__(self, **kwargs):
    super().__init__(
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
      **kwargs,
    )

  def error(self, message: str) -> NoReturn:
    self.exit(2, f'{self.prog}: error: {message}; see {self.prog} --help\n')

  def suggestion(self, argument: str) -> str:
    """' (did you mean --x?)' when a known flag is close, else ''."""
    name = argument.split('=', 1)[0]
    close = difflib.get_close_matches(name, self._option_string_actions, 1)
    return f' (did you mean {close[0]}?)' if close else ''


def build_parser() -> tuple[_Parser, dict[str, _Parser]]:
  """The parser of the program, and those of its commands by name."""
  parser = _Parser(
    prog='influence',
    description=(
      'Which training examples made a model behave as it does?\n'
      'Influence functions by Arnoldi iteration, for corpora of any size.'
    ),
    epilog=(
      'The order of the work: train-example (or your own model), fit-basis,\n'
      'project, then topk and self-influence as often as you like.\n'
      "Start with 'influence demo'."
    ),
  )
  commands = parser.add_subparsers(
    dest='command', metavar='COMMAND', required=True
  )
  made = {}
  for name, (add_arguments, summary, example) in _COMMANDS.items():
    command = commands.add_parser(
      name,
      help=summary,
      description=summary[0].upper() + summary[1:] + '.',
      epilog=f'example:\n  influence {name} {example}',
    )
    add_arguments(command)
    command.add_argument(
      '--json',
      action='store_true',
      help='print one JSON object on stdout and nothing else there',
    )
    command.add_argument(
      '--verbose', action='store_true', help='show warnings of libraries too'
    )
    made[name] = command
  return parser, made


def _add_demo(parser: _Parser) -> None:
  parser.add_argument(
    '--out', default='influence_demo', help='directory (default: %(default)s)'
  )


def _add_train_example(parser: _Parser) -> None:
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


def _add_fit_basis(parser: _Parser) -> None:
  _add_task(parser)
  parser.add_argument('--out', required=True, help='where the basis is stored')
  _add_number(parser, '--projection_dim', 50, 'eigenpairs to keep')
  _add_number(
    parser, '--num_iterations', 100, 'Arnoldi steps; about twice projection_dim'
  )
  _add_number(
    parser, '--sample_size', 4096, 'random examples the Hessian is taken over'
  )
  _add_number(
    parser, '--microbatch_size', 128, 'examples at a time on each device'
  )
  parser.add_argument(
    '--keep_negative',
    action='store_true',
    help='keep pairs with negative eigenvalues too',
  )
  parser.add_argument('--seed', type=int, default=0)


def _add_project(parser: _Parser) -> None:
  _add_task(parser)
  parser.add_argument('--basis', required=True, help='from fit-basis')
  _add_index(parser)
  _add_number(parser, '--num_workers', 2, 'workers on this machine')
  parser.add_argument(
    '--batch_size',
    type=int,
    help='examples of a device call (default: 128 for each device)',
  )
  _add_number(
    parser, '--range_size', 4096, 'examples of a unit of work, at most'
  )
  _add_number(
    parser,
    '--max_rejected_fraction',
    0.001,
    'fail when more examples are unusable',
  )
  parser.epilog = (
    f'{parser.epilog}\n\nEverything after -- goes to Beam, for instance '
    '--runner=DataflowRunner\nor --direct_running_mode=multi_processing.'
  )


def _add_topk(parser: _Parser) -> None:
  _add_task(parser)
  _add_index(parser)
  parser.add_argument(
    '--query_split', required=True, help="TFDS split, e.g. 'test[:100]'"
  )
  _add_k(parser, 10)
  parser.add_argument(
    '--basis', help='default: where it was when the index was made'
  )
  parser.add_argument(
    '--batch_size',
    type=int,
    help='queries of a device call (default: 128 for each device)',
  )
  _add_scores(parser)


def _add_self_influence(parser: _Parser) -> None:
  _add_index(parser)
  _add_k(parser, 100)
  _add_scores(parser)


def _add_describe(parser: _Parser) -> None:
  group = parser.add_mutually_exclusive_group(required=True)
  group.add_argument('--basis', help='a basis from fit-basis')
  group.add_argument('--index', help='an index from project')


def _add_number(
  parser: _Parser, name: str, default: int | float, text: str
) -> None:
  parser.add_argument(
    name,
    type=type(default),
    default=default,
    help=f'{text} (default: {default})',
  )


def _add_index(parser: _Parser) -> None:
  parser.add_argument('--index', required=True, help='directory of the index')


def _add_k(parser: _Parser, default: int) -> None:
  _add_number(parser, '--k', default, 'examples wanted')


def _add_task(parser: _Parser) -> None:
  parser.add_argument(
    '--task',
    required=True,
    metavar='MODULE:FUNCTION',
    help='import path of the function that makes the task',
  )
  parser.add_argument(
    '--task_arg',
    action='append',
    default=[],
    metavar='NAME=VALUE',
    help='argument of that function; may be repeated',
  )


def _add_scores(parser: _Parser) -> None:
  _add_number(parser, '--damping', 0.0, 'added to every eigenvalue')
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
  parser.add_argument('--out', help='also write the result here, as Parquet')


_COMMANDS: dict[str, tuple[Any, str, str]] = {
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
    _add_fit_basis,
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


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, dict[str, Any]]:
  """Splits a command line into common flags and the command's arguments."""
  parser, commands = build_parser()
  own, rest = _split_at_separator(argv)
  flags, unknown = parser.parse_known_args(own)
  command = commands[flags.command]
  if unknown:
    hint = command.suggestion(unknown[0])
    command.error(f'unknown argument {unknown[0]}{hint}')
  values = vars(flags).copy()
  for name in ('command', 'json', 'verbose'):
    del values[name]
  if flags.command == 'project':
    values['beam_arguments'] = rest
  elif rest:
    command.error(f'{flags.command} takes nothing after --')
  if 'task' in values:
    values['task'] = task_lib.TaskReference(
      values['task'], _task_arguments(command, values.pop('task_arg'))
    )
  if 'damping' in values:
    values['options'] = influence_scores.ScoreOptions(
      **{
        name: values.pop(name)
        for name in (
          'damping',
          'negative_eigenvalues',
          'projection_dim',
          'normalization',
        )
      }
    )
  return flags, values


def _split_at_separator(argv: Sequence[str]) -> tuple[list[str], list[str]]:
  argv = list(argv)
  position = argv.index('--') if '--' in argv else len(argv)
  return argv[:position], argv[position + 1 :]


def _task_arguments(command: _Parser, texts: Sequence[str]) -> dict[str, str]:
  arguments = {}
  for text in texts:
    name, separator, value = text.partition('=')
    if not (name and separator):
      command.error(f'--task_arg is {text!r}, expected NAME=VALUE')
    arguments[name] = value
  return arguments
