"""Generations of an index: going back, and deleting what no reader needs."""

from collections.abc import Iterator
import dataclasses
import re
import time

from influence_core import errors
from pipeline.index import format as index_format, manifest as manifest_lib
from pipeline.projection import plan as plan_lib
from pipeline.storage import files as storage

# Files that an index consists of, and what killed writers leave of them.
_OWN_FILE = re.compile(
  r'(manifest|rejected|plan|rows|vectors|\.writable)-|(queries|leaders)\.npz'
)


def roll_back(index: str, generation: int) -> manifest_lib.Manifest:
  """Publishes what an older generation holds as the newest one.

  Nothing is deleted or renumbered: readers that are at work are not disturbed,
  and the generation that was left can be gone back to as well.

  Raises:
    errors.InputError: There is no such generation, it is the newest, or files
      of it are gone.
  """
  wanted = manifest_lib.load(index, generation)
  newest = manifest_lib.load(index)
  if (newest.provenance, newest.shards) == (wanted.provenance, wanted.shards):
    raise errors.InputError(
      f'generation {generation} is what the newest one, {newest.generation}, '
      'holds already'
    )
  missing = index_format.missing_files(index, wanted.shards)
  if missing:
    raise errors.InputError(
      f'{len(missing)} files of generation {generation} are gone, such as '
      f'{missing[0]}; project the corpus again'
    )
  return manifest_lib.publish(
    index, wanted.provenance, wanted.shards, wanted.rejected
  )


@dataclasses.dataclass(frozen=True)
class Garbage:
  """Files that no reader needs.

  Attributes:
    generations: whose manifests are to be deleted.
    paths: of all files to be deleted, manifests first.
    num_bytes: their size.
  """

  generations: tuple[int, ...]
  paths: tuple[str, ...]
  num_bytes: int


def find_garbage(index: str, *, num_kept: int, grace_seconds: float) -> Garbage:
  """Generations beyond those kept, and files that no kept one names.

  What was superseded, written or planned within the grace period is kept:
  readers stay on the generation that they opened, and a job that is running
  adopts shards of earlier ones. It must be longer than any of them takes.

  Args:
    index: directory of the index.
    num_kept: newest generations to keep whatever their age, at least 1.
    grace_seconds: the grace period.

  Raises:
    errors.InputError: num_kept or the grace period is out of range, or nothing
      is published.
    storage.DamagedFileError: A manifest is damaged; nothing may be deleted
      then.
  """
  if num_kept < 1 or grace_seconds < 0:
    raise errors.InputError(
      f'keep is {num_kept} and the grace period {grace_seconds} s, expected at '
      'least 1 and 0'
    )
  manifest_lib.load(index)
  before = time.time() - grace_seconds
  kept, dropped = _split(index, num_kept, before)
  needed = {
    file.name
    for manifest in kept
    for shard in manifest.shards
    for file in (shard.rows, shard.vectors)
  }
  needed |= {manifest.rejected.name for manifest in kept if manifest.rejected}
  needed |= {manifest_lib.file_name(manifest.generation) for manifest in kept}
  planned = set(_stems_of_recent_plans(index, before))
  paths, num_bytes = [], 0
  for directory in _directories(index):
    for name, entry in storage.entries(directory).items():
      if entry.is_directory or name in needed or entry.modified > before:
        continue
      if not _OWN_FILE.match(name):
        continue
      if index_format.stem_of(name) in planned:
        continue
      paths.append(storage.join(directory, name))
      num_bytes += entry.num_bytes
  return Garbage(tuple(dropped), tuple(paths), num_bytes)


def delete(garbage: Garbage) -> None:
  """Deletes files, manifests before what they name."""
  for path in garbage.paths:
    storage.remove(path)


def _directories(index: str) -> list[str]:
  """Where files of an index are."""
  searches = storage.join(index, 'searches')
  return [
    index,
    storage.join(index, 'plans'),
    index_format.shards_directory(index),
    *(storage.join(searches, name) for name in storage.entries(searches)),
  ]


def _split(
  index: str, num_kept: int, before: float
) -> tuple[list[manifest_lib.Manifest], list[int]]:
  """Manifests that are kept, and numbers of those that are not."""
  published = manifest_lib.generations(index)
  entries = storage.entries(index)
  kept, dropped = [], []
  for place, generation in enumerate(published):
    is_new = place >= len(published) - num_kept
    if not is_new:
      # It was the newest until its successor was published.
      successor = manifest_lib.file_name(published[place + 1])
      is_new = entries[successor].modified > before
    if is_new:
      kept.append(manifest_lib.load(index, generation))
    else:
      dropped.append(generation)
  return kept, dropped


def _stems_of_recent_plans(index: str, before: float) -> Iterator[str]:
  """Ranges that a job may be at work on."""
  directory = storage.join(index, 'plans')
  for name, entry in storage.entries(directory).items():
    if entry.modified > before:
      for example_range in plan_lib.load(storage.join(directory, name)).ranges:
        yield example_range.stem
