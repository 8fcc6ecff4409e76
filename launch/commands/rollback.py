"""`influence rollback`: back to an older generation of an index."""

from typing import Any

from launch.output import console as console_lib
from pipeline.storage import files as storage
from pipeline.upkeep import generations


def run(
  console: console_lib.Console, *, index: str, generation: int
) -> dict[str, Any]:
  """Publishes an older generation again, as the newest."""
  path = storage.absolute(index)
  manifest = generations.roll_back(path, generation)
  console.print(
    f'published generation {manifest.generation} of {path}: the '
    f'{manifest.num_examples} examples of generation {generation}'
  )
  return {
    'index': path,
    'generation': manifest.generation,
    'num_examples': manifest.num_examples,
  }
