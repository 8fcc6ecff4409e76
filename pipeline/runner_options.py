"""Beam options: defaults for one machine, and a check for misspelt ones."""

from collections.abc import Sequence
import difflib

from apache_beam.options import pipeline_options
from apache_beam.runners import runner

from influence_core import errors

# DirectRunner would silently choose between two engines, depending on whether
# it can download one of them. FnApiRunner is always the same.
LOCAL_RUNNER = 'FnApiRunner'


def make_options(
  beam_arguments: Sequence[str], num_workers: int
) -> pipeline_options.PipelineOptions:
  """Beam options from what the user wrote after `--`.

  Without `--runner`, the pipeline runs on this machine in `num_workers`
  threads of one process, which share parameters, basis and devices;
  `--direct_running_mode=multi_processing` gives each its own process.

  Raises:
    errors.InputError: An option that no part of Beam knows, or num_workers is
      not positive.
  """
  if num_workers < 1:
    raise errors.InputError(
      f'num_workers is {num_workers}, expected at least 1'
    )
  arguments = list(beam_arguments)
  known = known_options()
  for argument in arguments:
    name = argument.split('=', 1)[0]
    if name.startswith('-') and name not in known:
      close = difflib.get_close_matches(name, known, 1)
      hint = f'did you mean {close[0]}?' if close else 'see the Beam manual'
      raise errors.InputError(f'{name} is no Beam option; {hint}')
  names = {argument.split('=', 1)[0] for argument in arguments}
  if '--runner' not in names:
    arguments.append(f'--runner={LOCAL_RUNNER}')
    if '--direct_num_workers' not in names:
      arguments.append(f'--direct_num_workers={num_workers}')
    if '--direct_running_mode' not in names:
      arguments.append('--direct_running_mode=multi_threading')
  options = pipeline_options.PipelineOptions(arguments)
  name = options.view_as(pipeline_options.StandardOptions).runner
  try:
    runner.create_runner(name)
  except (ValueError, ImportError, AttributeError) as error:
    raise errors.InputError(
      f'Beam cannot load the runner {name} ({error}); correct --runner or '
      'install what it needs'
    ) from error
  return options


def known_options() -> set[str]:
  """Every option that a class of Beam's options defines."""
  known: set[str] = set()
  for option_class in pipeline_options.PipelineOptions.__subclasses__():
    parser = pipeline_options._BeamArgumentParser(allow_abbrev=False)
    option_class._add_argparse_args(parser)
    known.update(parser._option_string_actions)
  return known
