"""Keeps outputs out of one another: no index in a basis, no results in either.

An index is collected as garbage and a basis cleans up after itself; what others
have put there may be taken for theirs.
"""

import re
from typing import Literal

from influence_core import errors
from pipeline.storage import files as storage

Kind = Literal['basis', 'index', 'results']

_MANIFEST = re.compile(r'manifest-\d{6}\.json')


def check(path: str, kind: Kind) -> None:
  """Refuses a place that belongs to an output of another kind.

  Args:
    path: of a file or directory to write, there or not.
    kind: what it will be; a basis or an index may be where one is already.

  Raises:
    errors.InputError: An index or a basis is there, or above it.
  """
  place = storage.absolute(path)
  while True:
    found = kind_at(place)
    is_there = place == storage.absolute(path)
    if found and not (is_there and found == kind):
      raise errors.InputError(
        f'{path} is {"" if is_there else "inside "}the {found} at {place}; '
        'choose a place of its own'
      )
    parent = place.rpartition('/')[0]
    if not parent or parent.endswith('/') or parent == place:
      return
    place = parent


def check_results(directory: str) -> str:
  """Checks that results can be written to a directory.

  Returns:
    Its absolute path.

  Raises:
    errors.InputError: They cannot, or it belongs to an index or a basis.
  """
  directory = storage.absolute(directory)
  check(directory, 'results')
  storage.check_writable(directory)
  return directory


def kind_at(directory: str) -> Kind | None:
  """What is stored at a directory itself; None for nothing known."""
  if storage.exists(storage.join(directory, 'basis.json')):
    return 'basis'
  # Others have a folder of this name too.
  if not storage.exists(storage.join(directory, 'shards')):
    return None
  names = storage.list_names(directory)
  is_index = 'plans' in names or any(map(_MANIFEST.fullmatch, names))
  return 'index' if is_index else None
