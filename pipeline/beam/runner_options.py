"""Beam options of an engine, and a check for misspelt ones."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import difflib
import io
import shlex

import apache_beam as beam
from apache_beam.options import pipeline_options
from apache_beam.runners import runner

from influence_core import errors
from pipeline.beam import engines


def make_options(
  choice: engines.EngineChoice, *, tell: Callable[[str], None]
) -> pipeline_options.PipelineOptions:
  """Beam options of an engine, with those that the user wrote after `--`.

  Args:
    choice: the engine, and the user's options.
    tell: called with a line that says what the options are.

  Raises:
    errors.InputError: An option that no part of Beam knows, a runner that
      cannot be loaded, or something that it needs is not there.
  """
  engine = choice.engine or 'local'
  arguments = engines.arguments(
    engine, choice.num_workers, choice.beam_arguments
  )
  tell(f'engine={engine} options={shlex.join(arguments)}')
  with _telling_bad_values():
    name = (
      pipeline_options.PipelineOptions(arguments)
      .view_as(pipeline_options.StandardOptions)
      .runner
    )
    # This also makes the options of the runner known.
    try:
      runner.create_runner(name)
    except (ValueError, ImportError, AttributeError) as error:
      raise errors.InputError(
        f'Beam cannot load the runner {name} ({error}); correct --runner or '
        'install what it needs'
      ) from error
    _check_known(choice.beam_arguments)
    options = pipeline_options.PipelineOptions(arguments)
    # Else Beam parses an option when it needs it.
    options.get_all_options()
  local = options.view_as(pipeline_options.DirectOptions)
  if local.direct_num_workers < 0:
    raise errors.InputError(
      f'direct_num_workers is {local.direct_num_workers}, expected at least 0, '
      'one for each core'
    )
  return options


@contextlib.contextmanager
def _telling_bad_values() -> Iterator[None]:
  """Raises `errors.InputError` where Beam's parser would end the process."""
  told = io.StringIO()
  try:
    with contextlib.redirect_stderr(told):
      yield
  except SystemExit as error:
    line = told.getvalue().strip().rpartition('error: ')[2]
    raise errors.InputError(
      f'Beam does not take what follows -- ({line}); correct it'
    ) from error


def _check_known(arguments: Sequence[str]) -> None:
  """Refuses what no part of Beam knows, which Beam itself would leave out."""
  parser = _parser()
  for left in parser.parse_known_args(list(arguments))[1]:
    option = left.split('=', 1)[0]
    if not option.startswith('-'):
      raise errors.InputError(
        f'{left!r} after -- is no Beam option; write options as --name=value'
      )
    close = difflib.get_close_matches(option, parser._option_string_actions, 1)
    hint = f'did you mean {close[0]}?' if close else 'see the Beam manual'
    raise errors.InputError(f'{option} is no Beam option; {hint}')


def _parser() -> pipeline_options._BeamArgumentParser:
  """Knows every option that a class of Beam's options defines so far."""
  parser = pipeline_options._BeamArgumentParser(allow_abbrev=False)
  classes = pipeline_options.PipelineOptions.__subclasses__()
  # One of each name: modules of Beam may have been imported twice.
  for option_class in {str(x): x for x in classes}.values():
    option_class._add_argparse_args(parser)
  return parser


def begin_pipeline(options: pipeline_options.PipelineOptions) -> beam.Pipeline:
  """An empty pipeline.

  Raises:
    errors.InputError: Options that its runner needs are missing or wrong.
  """
  try:
    return beam.Pipeline(options=options)
  except ValueError as error:
    raise errors.InputError(
      f'Beam cannot run with these options ({" ".join(str(error).split())}); '
      'give them after --'
    ) from error


def is_local(options: pipeline_options.PipelineOptions) -> bool:
  """Whether all workers are on this machine, and the launcher's to watch."""
  name = options.view_as(pipeline_options.StandardOptions).runner
  environment = options.view_as(pipeline_options.PortableOptions)
  return (
    name == engines.LOCAL_RUNNER or environment.environment_type == 'LOOPBACK'
  )
