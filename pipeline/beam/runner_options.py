"""Beam options of an engine, and a check for misspelt ones."""

from collections.abc import Callable
import contextlib
import difflib
import io
import shlex

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
  known = known_options()
  for argument in choice.beam_arguments:
    option = argument.split('=', 1)[0]
    if option.startswith('-') and option not in known:
      close = difflib.get_close_matches(option, known, 1)
      hint = f'did you mean {close[0]}?' if close else 'see the Beam manual'
      raise errors.InputError(f'{option} is no Beam option; {hint}')
  options = pipeline_options.PipelineOptions(arguments)
  _check_values(options)
  return options


def _check_values(options: pipeline_options.PipelineOptions) -> None:
  """Lets Beam parse all options, which it else does when each is needed.

  Raises:
    errors.InputError: A value is of a wrong kind, in Beam's words.
  """
  told = io.StringIO()
  try:
    with contextlib.redirect_stderr(told):
      options.get_all_options()
  except SystemExit as error:
    line = told.getvalue().strip().rpartition('error: ')[2]
    raise errors.InputError(
      f'Beam does not take what follows -- ({line}); correct it'
    ) from error


def known_options() -> set[str]:
  """Every option that a class of Beam's options defines so far."""
  known: set[str] = set()
  for option_class in pipeline_options.PipelineOptions.__subclasses__():
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False)
    option_class._add_argparse_args(parser)
    known.update(parser._option_string_actions)
  return known


def is_local(options: pipeline_options.PipelineOptions) -> bool:
  """Whether all workers are on this machine, and the launcher's to watch."""
  name = options.view_as(pipeline_options.StandardOptions).runner
  environment = options.view_as(pipeline_options.PortableOptions)
  return (
    name == engines.LOCAL_RUNNER or environment.environment_type == 'LOOPBACK'
  )
