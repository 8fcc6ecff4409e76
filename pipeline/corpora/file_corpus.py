"""Examples in files that people have: Parquet, Arrow, JSON Lines, CSV, arrays.

Rows are dictionaries by the names of columns, as `Task.preprocess` gets them.
"""

from collections.abc import Sequence
import dataclasses
import functools
import re

from influence_core import errors
from pipeline.corpora import row_readers, splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
  read_each,
)
from pipeline.storage import file_identity, files as storage

# The split of files whose names say none.
ONLY_SPLIT = 'train'
# What is numbered, but says none: data-00000-of-00002.arrow.
_NO_SPLIT = 'data'
# What comes before the number of a file, as in train-00000-of-00008.parquet.
_NUMBERED = re.compile(r'(.+?)[-_.]\d+-of-\d+.*')
# Names of splits that files have without a number.
_KNOWN = re.compile(r'(train|test|validation|valid|val|dev|eval)\b.*')


@dataclasses.dataclass(frozen=True)
class FileCorpus(Corpus):
  """Rows of .parquet, .arrow, .jsonl, .csv, .tsv, .npz; text also .gz, .zst.

  Files of a directory belong to the split that their names begin with, as
  `train-00000-of-00008.parquet` and `test.jsonl` do, or that the directory of
  the file is named after, as Hugging Face's `save_to_disk` writes them; where
  none says so, to 'train'.

  Attributes:
    path: of a file, or a directory with files of one kind, local or gs://.
    split: as in TFDS, e.g. 'train', 'test[:100]', 'train[10%:20%]'.
    columns: to be read; empty for all.
  """

  path: str
  split: str = ONLY_SPLIT
  columns: tuple[str, ...] = ()

  def with_split(self, split: str) -> 'FileCorpus':
    return dataclasses.replace(self, split=split)

  @functools.cached_property
  def _root(self) -> str:
    """The directory that the files are in."""
    path = storage.absolute(self.path)
    is_file = file_identity.identify(path) is not None
    return path.rpartition('/')[0] if is_file else path

  @functools.cached_property
  def _names(self) -> dict[str, str]:
    """Place of each file in the directory by its source shard, in order.

    Raises:
      errors.InputError: There is none, or there are several kinds.
    """
    path = storage.absolute(self.path)
    names = [path.removeprefix(f'{self._root}/')]
    if path == self._root:
      names = [*filter(row_readers.kind_of, file_identity.tree(path))]
    found = {name.replace('/', '.'): name for name in names}
    if len(found) < len(names):
      raise errors.InputError(
        f'{self.path} has files whose places differ only in / and ., expected '
        'others; rename them'
      )
    kinds = sorted({str(row_readers.kind_of(name)) for name in found})
    if len(kinds) != 1 or kinds == ['None']:
      raise errors.InputError(
        f'{self.path} has {" and ".join(kinds) or "no"} files, expected those '
        f'of one kind: {", ".join(row_readers.READERS)}'
      )
    return found

  @functools.cached_property
  def _reader(self) -> row_readers.RowReader:
    kind = row_readers.kind_of(next(iter(self._names)))
    return row_readers.READERS[str(kind)](self.columns)

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    by_split: dict[str, list[tuple[str, int]]] = {}
    for name in self._names:
      count = self._reader.num_rows(self.path_of(name))
      by_split.setdefault(split_of(self._names[name]), []).append((name, count))
    return splits.choose(by_split, self.split, of=self.path)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    path = self.path_of(name)
    identity = file_identity.identify(path)
    if identity is None:
      raise errors.InputError(f'{path} is missing; write it again')
    return identity.fingerprint

  def path_of(self, name: str) -> str:
    """Where a source shard is."""
    return storage.join(self._root, self._names[name])

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Sequence[RawExample | UndecodableExample]:
    read = functools.partial(self._reader.read, self.path_of(name))
    return read_each(read, records)


def split_of(name: str) -> str:
  """The split that a path says, by file, directory or what is numbered."""
  *directories, file = name.split('/')
  for part in (file, *reversed(directories)):
    if match := _KNOWN.fullmatch(part):
      return match[1]
  match = _NUMBERED.fullmatch(file)
  return match[1] if match and match[1] != _NO_SPLIT else ONLY_SPLIT
