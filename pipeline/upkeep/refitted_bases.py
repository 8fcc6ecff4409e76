"""Bases that reindexing fits again for new models: whose they are, how long.

    BASIS-<model>/                    beside the basis that was configured
    BASIS-<model>/indexes/<key>.json  an index that was projected on it

One that no published generation names any more, of no other index, is garbage.
"""

import re

from pipeline.index import manifest as manifest_lib
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  output_places,
)

_MODEL = '[0-9a-f]{16}'


def path_for(base: str, model: str) -> str:
  """Where the basis of another model is.

  Args:
    base: absolute path of the basis that was configured.
    model: fingerprint of the model.
  """
  return f'{base}-{model}'


def claim(path: str, index: str) -> None:
  """Notes that an index is projected on a basis."""
  content = checked_files.encode_json({'index': index})
  storage.create_exclusive(_claim_path(path, index), content)


def remove_unused(base: str, index: str, current: str) -> list[str]:
  """Deletes bases that only older models of an index had.

  Args:
    base: absolute path of the basis that was configured.
    index: absolute path of the index.
    current: the basis that it is projected on now.

  Returns:
    Their paths.
  """
  used = {current} | {
    manifest_lib.load(index, generation).provenance.basis
    for generation in manifest_lib.generations(index)
  }
  directory, _, name = base.rpartition('/')
  pattern = re.compile(f'{re.escape(name)}-{_MODEL}')
  mine = [fingerprints.of_json(index) + '.json']
  unused = []
  for entry in storage.list_names(directory):
    path = storage.join(directory, entry)
    if (
      pattern.fullmatch(entry)
      and path not in used
      and output_places.kind_at(path) == 'basis'
      and storage.list_names(storage.join(path, 'indexes')) == mine
    ):
      storage.remove_directory(path)
      unused.append(path)
  return unused


def _claim_path(path: str, index: str) -> str:
  return storage.join(path, 'indexes', f'{fingerprints.of_json(index)}.json')
