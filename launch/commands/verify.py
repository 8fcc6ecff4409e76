"""`influence verify`: reads every byte of an index and checks it."""

from typing import Any

from launch.output import console as console_lib
from pipeline.index import reader as index_reader
from pipeline.storage import files as storage
from pipeline.upkeep import verify


def run(console: console_lib.Console, *, index: str) -> dict[str, Any]:
  """Verifies an index.

  Raises:
    storage.DamagedFileError: Something is wrong; everything found is printed
      first.
  """
  opened = index_reader.Index(index)
  with console.stage('verify') as progress:
    damage = list(verify.find_damage(opened, progress=progress))
  for line in damage:
    console.warn(line)
  if damage:
    raise storage.DamagedFileError(
      f'{opened.path} has {len(damage)} damaged parts, the first: {damage[0]}; '
      'run project again to repair it'
    )
  console.print(
    f'{opened.path} is sound: generation {opened.manifest.generation}, '
    f'{opened.num_examples} examples in {len(opened.manifest.shards)} shards'
  )
  return {
    'index': opened.path,
    'generation': opened.manifest.generation,
    'num_examples': opened.num_examples,
    'num_shards': len(opened.manifest.shards),
    'sound': True,
  }
