"""Published states of a basis: a record for each, of which the newest counts.

    BASIS/basis.json          the first; also tells that a basis is here
    BASIS/basis-000002.json   what replaced it, when it was fitted further

A record is created only if absent and names everything else of the basis, so a
reader has the old basis or the new one, and of runs that race one wins.
"""

from collections.abc import Iterator, Mapping
import contextlib
import re
from typing import Any

from influence_core import errors
from pipeline.storage import checked_files, files as storage

_NAME = re.compile(r'basis(?:-(\d{6}))?\.json')


def newest(path: str) -> int:
  """The newest generation of the basis at `path`; 0 where there is none."""
  matches = map(_NAME.fullmatch, storage.list_names(path))
  return max((int(match[1] or 1) for match in matches if match), default=0)


def record_path(path: str, generation: int) -> str:
  """The record of a generation."""
  suffix = f'-{generation:06d}' if generation > 1 else ''
  return storage.join(path, f'basis{suffix}.json')


def publish(path: str, generation: int, content: Mapping[str, Any]) -> None:
  """Makes a record the newest one.

  Args:
    path: of the basis.
    generation: one more than that which it replaces; 1 where there is none.
    content: of the record.

  Raises:
    errors.InputError: Another run was first.
  """
  document = checked_files.encode_json(dict(content))
  place = record_path(path, generation)
  if (
    not storage.create_exclusive(place, document)
    # An object store's answer can get lost and the request be sent again.
    and storage.read_bytes(place) != document
  ):
    raise errors.InputError(
      f'a basis was stored at {path} in the meantime; choose another directory '
      'or use that one'
    )


@contextlib.contextmanager
def tell_replacement(path: str, generation: int) -> Iterator[None]:
  """Says so where what is read cannot be since the basis was replaced.

  Raises:
    errors.InputError: There is a newer generation.
  """
  try:
    yield
  except Exception as error:  # Orbax tells of missing files in many ways.
    if newest(path) > generation:
      raise errors.InputError(
        f'the basis at {path} was fitted further and replaced while it was '
        'read; run the same command again'
      ) from error
    raise
