"""Verifies an index, collects its garbage: for commands and `reindex`."""

from typing import Any

from launch.output import console as console_lib
from pipeline.index import reader as index_reader
from pipeline.storage import files as storage
from pipeline.upkeep import generations, verify

_SECONDS_PER_HOUR = 3600


def verify_index(console: console_lib.Console, *, index: str) -> dict[str, Any]:
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


def collect_garbage(
  console: console_lib.Console,
  *,
  index: str,
  keep: int,
  grace_hours: float,
  dry_run: bool,
) -> dict[str, Any]:
  """Deletes generations and files that no reader needs."""
  path = storage.absolute(index)
  garbage = generations.find_garbage(
    path, num_kept=keep, grace_seconds=grace_hours * _SECONDS_PER_HOUR
  )
  if not dry_run:
    generations.delete(garbage)
  for name in garbage.paths if dry_run else ():
    console.print(name)
  what = 'would be deleted' if dry_run else 'deleted'
  numbers = ', '.join(map(str, garbage.generations)) or 'none'
  console.print(
    f'{len(garbage.paths)} files {what}, {garbage.num_bytes:,} bytes; '
    f'generations {what}: {numbers}'
  )
  return {
    'index': path,
    'dry_run': dry_run,
    'generations': list(garbage.generations),
    'paths': list(garbage.paths),
    'num_bytes': garbage.num_bytes,
  }
