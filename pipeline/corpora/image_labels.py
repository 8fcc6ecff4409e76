"""Tables of what is known of images: a row for each, by its place in a folder.

file_name,label,age          as Hugging Face's metadata.csv
cat/1.png,cat,3
"""

from collections.abc import Iterator, Mapping, Sequence
import functools
import posixpath
from typing import Any, NamedTuple

from influence_core import errors
from pipeline.corpora import example_codec, recent, row_readers
from pipeline.corpora.corpus import (
  READ_TOGETHER,
  UndecodableExample,
  read_each,
)
from pipeline.storage import file_identity, files as storage, fingerprints

FILE_COLUMN = 'file_name'
# What examples have besides the columns of a table.
OWN_KEYS = ('image', 'file')


class _Row(NamedTuple):
  """A row of a table: its number, and what changes with its content."""

  number: int
  fingerprint: str


class _Table(NamedTuple):
  """A table, and its rows by folder and place of the image."""

  path: str
  reader: row_readers.RowReader
  rows: dict[str, dict[str, _Row]]


class ImageLabels:
  """Rows by the places of images, of tables in a folder or elsewhere."""

  def __init__(self, bases: Mapping[str, str]):
    """Reads nothing yet.

    Args:
      bases: for each table the folder that its places begin at, '' for the
        whole.
    """
    self._bases = bases
    self._load = recent.keep_last(_load, 2 * len(bases))

  @functools.cached_property
  def rows(self) -> dict[str, tuple[_Table, _Row]]:
    """The row of each image that has one.

    Raises:
      errors.InputError: A table cannot be read, or an image has two rows.
    """
    found: dict[str, tuple[_Table, _Row]] = {}
    for path in self._bases:
      table = self._current(path)
      for rows in table.rows.values():
        for place, row in rows.items():
          if place in found:
            raise errors.InputError(
              f'{place} has rows in {found[place][0].path} and {path}, '
              'expected one; remove the other'
            )
          found[place] = table, row
    return found

  def fingerprints(self, folder: str) -> dict[str, str]:
    """By the place of each image of a folder that has a row, as of now."""
    found: dict[str, str] = {}
    for path, base in self._bases.items():
      if f'{folder}/'.startswith(f'{base}/' if base else ''):
        rows = self._current(path).rows.get(folder, {})
        found |= {place: row.fingerprint for place, row in rows.items()}
    return found

  def read(
    self, places: Sequence[str]
  ) -> list[Mapping[str, Any] | UndecodableExample]:
    """The row of each image, without its place."""
    found: dict[str, Mapping[str, Any] | UndecodableExample] = {}
    wanted: dict[str, list[str]] = {}
    for place in places:
      if place in self.rows:
        wanted.setdefault(self.rows[place][0].path, []).append(place)
    for path, own in wanted.items():
      reader = self.rows[own[0]][0].reader
      numbers = [self.rows[place][1].number for place in own]
      rows = read_each(functools.partial(reader.read, path), numbers)
      found |= zip(own, rows, strict=True)
    return [
      found.get(place, UndecodableExample(f'no table has a row for {place}'))
      for place in places
    ]

  def _current(self, path: str) -> _Table:
    identity = file_identity.identify(path)
    if identity is None:
      raise errors.InputError(f'{path} is missing; write it again')
    return self._load(path, self._bases[path], identity.fingerprint)


def find_tables(
  folder: str, labels: str, names: Sequence[str]
) -> dict[str, str]:
  """Tables and where their places begin, for `ImageLabels`.

  Args:
    folder: of the images.
    labels: path of a table, or the name of those in the folder.
    names: of all files, by their places in the folder.

  Raises:
    errors.InputError: There is none of this name, or of a kind that is read.
  """
  root = storage.absolute(folder)
  if '/' in labels:
    path = storage.absolute(labels)
    inside = posixpath.dirname(path.removeprefix(f'{root}/'))
    found = {path: inside if path.startswith(f'{root}/') else ''}
  else:
    found = {
      storage.join(root, name): posixpath.dirname(name)
      for name in names
      if posixpath.basename(name) == labels
    }
  if not found:
    raise errors.InputError(
      f'{folder} has no table {labels}, expected one in it; choose another '
      f'name, or a path such as ./{labels} for a table beside the folder'
    )
  if row_readers.kind_of(labels) not in row_readers.TABLES:
    raise errors.InputError(
      f'labels is {labels}, expected {", ".join(row_readers.TABLES)}'
    )
  return found


def _load(path: str, base: str, fingerprint: str) -> _Table:
  """Reads a table through once; the fingerprint stands for its content."""
  kind = row_readers.kind_of(path)
  table = _Table(path, row_readers.READERS[str(kind)](()), {})
  for number, row in enumerate(_read_all(table)):
    if isinstance(row, UndecodableExample):
      raise errors.InputError(
        f'row {number} of {path} cannot be read ({row.reason}); correct it'
      )
    place = _place_of(path, base, number, row)
    own = table.rows.setdefault(posixpath.dirname(place), {})
    if place in own:
      raise errors.InputError(
        f'rows {own[place].number} and {number} of {path} are of {place}, '
        'expected one; remove the other'
      )
    own[place] = _Row(number, _fingerprint(path, number, row))
  return table


def _read_all(
  table: _Table,
) -> Iterator[Mapping[str, Any] | UndecodableExample]:
  read = functools.partial(table.reader.read, table.path)
  count = table.reader.num_rows(table.path)
  for start in range(0, count, READ_TOGETHER):
    yield from read_each(read, range(start, min(start + READ_TOGETHER, count)))


def _place_of(path: str, base: str, number: int, row: Mapping[str, Any]) -> str:
  """The place in the folder of the image of a row."""
  name = row.get(FILE_COLUMN)
  if not isinstance(name, str) or not name:
    raise errors.InputError(
      f'row {number} of {path} has {FILE_COLUMN} {name!r} among '
      f'{", ".join(row)}, expected the place of an image; name this column '
      f'{FILE_COLUMN} and fill it'
    )
  place = posixpath.normpath(posixpath.join(base, name))
  if place.startswith(('/', '../')):
    raise errors.InputError(
      f'row {number} of {path} has {FILE_COLUMN} {name}, expected a place in '
      'the folder of the images; correct it'
    )
  if taken := [key for key in OWN_KEYS if key in row]:
    raise errors.InputError(
      f'{path} has a column {taken[0]}, which examples have already; rename it'
    )
  return place


def _fingerprint(path: str, number: int, row: Mapping[str, Any]) -> str:
  try:
    return fingerprints.of_bytes(example_codec.encode(dict(row)))
  except TypeError as error:
    raise errors.InputError(
      f'row {number} of {path} cannot be kept ({error}); correct it'
    ) from error
