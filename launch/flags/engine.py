"""The flags that choose where a Beam pipeline runs."""

import argparse

from launch.flags import common as common_flags
from pipeline.beam import engine_files, engines


def add_engine(
  parser: argparse.ArgumentParser, *, of_search: bool = False
) -> None:
  """--engine and --num_workers; more goes to Beam after --.

  Args:
    parser: of the command.
    of_search: whether it does without Beam unless an engine is chosen.
  """
  about = '; '.join(
    f'{name}: {engine.summary}' for name, engine in engines.ENGINES.items()
  )
  without = 'without Beam' if of_search else 'local'
  parser.add_argument(
    '--engine',
    choices=tuple(engines.ENGINES),
    default=None if of_search else 'local',
    help=f'where Beam runs (default: {without}). {about}',
  )
  common_flags.add_number(parser, '--num_workers', 2, 'workers on this machine')


def add_install_engine(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'engine', choices=tuple(engine_files.FILES), help='what to prepare for'
  )
