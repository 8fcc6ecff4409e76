"""`influence gc`: deletes generations and files that no reader needs."""

from typing import Any

from launch.output import console as console_lib
from pipeline.storage import files as storage
from pipeline.upkeep import generations

_SECONDS_PER_HOUR = 3600


def run(
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
