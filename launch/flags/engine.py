"""The flags that choose where a Beam pipeline runs."""

import argparse
import dataclasses
from typing import Any

from launch.flags import common as common_flags
from pipeline.beam import engine_files, engines


@dataclasses.dataclass(frozen=True)
class EngineGroup:
  """--engine and --num_workers; more goes to Beam after --.

  Attributes:
    of_search: whether the command does without Beam unless an engine is
      chosen.
  """

  of_search: bool = False
  name = 'engine'

  def add_flags(self, parser: argparse.ArgumentParser) -> None:
    about = '; '.join(
      f'{name}: {engine.summary}' for name, engine in engines.ENGINES.items()
    )
    without = 'without Beam' if self.of_search else 'local'
    parser.add_argument(
      '--engine',
      choices=tuple(engines.ENGINES),
      default=None if self.of_search else 'local',
      help=f'where Beam runs (default: {without}). {about}',
    )
    common_flags.add_number(
      parser, '--num_workers', 2, 'number of workers on this machine'
    )

  def take(self, values: dict[str, Any]) -> engines.EngineChoice:
    return engines.EngineChoice(
      values.pop('engine'),
      values.pop('num_workers'),
      values.pop('beam_arguments'),
    )


def add_install_engine(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'engine', choices=tuple(engine_files.FILES), help='what to prepare for'
  )
