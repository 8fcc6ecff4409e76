"""Examples in files that people have: Parquet, JSON Lines, CSV, arrays.

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
)
from pipeline.storage import file_identity, files as storage

# The split of files whose names say none.
_ONLY_SPLIT = 'train'
# What comes before the number of a file, as in train-00000-of-00008.parquet.
_NUMBERED = re.compile(r'(.+?)[-_.]\d+-of-\d+.*')
# Names of splits that files have without a number.
_KNOWN = re.compile(r'(train|test|validation|valid|val|dev|eval)\b.*')


@dataclasses.dataclass(frozen=True)
class FileCorpus(Corpus):
  """Rows of files: .parquet, .jsonl, .csv, .tsv, .npz; text also .gz and .zst.

  Files of a directory belong to the split that their names begin with, as
  `train-00000-of-00008.parquet` and `test.jsonl` do, or that a directory is
  named after; where none says so, all are 'train'.

  Attributes:
    path: of a file, or a directory with files of one kind, local or gs://.
    split: as in TFDS, e.g. 'train', 'test[:100]', 'train[10%:20%]'.
    columns: to be read; empty for all.
  """

  path: str
  split: str = _ONLY_SPLIT
  columns: tuple[str, ...] = ()

  def with_split(self, split: str) -> 'FileCorpus':
    return dataclasses.replace(self, split=split)

  @functools.cached_property
  def _files(self) -> dict[str, str]:
    """Path of each file by its name as a source shard, in order.

    Raises:
      errors.InputError: There is none, or there are several kinds.
    """
    root = storage.absolute(self.path)
    if file_identity.identify(root) is not None:
      found = {root.rsplit('/', 1)[-1]: root}
    else:
      found = {
        name.replace('/', '.'): storage.join(root, name)
        for name in file_identity.tree(root)
        if row_readers.kind_of(name)
      }
    kinds = sorted({str(row_readers.kind_of(name)) for name in found})
    if len(kinds) != 1 or kinds == ['None']:
      raise errors.InputError(
        f'{self.path} has {" and ".join(kinds) or "no"} files, expected those '
        f'of one kind: {", ".join(row_readers.READERS)}'
      )
    return found

  @functools.cached_property
  def _reader(self) -> row_readers.RowReader:
    kind = row_readers.kind_of(next(iter(self._files)))
    return row_readers.READERS[str(kind)](self.columns)

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    by_split: dict[str, list[tuple[str, int]]] = {}
    for name, path in self._files.items():
      count = self._reader.num_rows(path)
      by_split.setdefault(_split_of(name), []).append((name, count))
    return splits.choose_files(by_split, self.split, of=self.path)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    identity = file_identity.identify(self._files[name])
    if identity is None:
      raise errors.InputError(f'{self._files[name]} is missing; write it again')
    return identity.fingerprint

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Sequence[RawExample | UndecodableExample]:
    path = self._files[name]
    try:
      return self._reader.read(path, records)
    except RuntimeError:  # One of them is damaged: which one?
      return [self._read_one(path, record) for record in records]

  def _read_one(
    self, path: str, record: int
  ) -> RawExample | UndecodableExample:
    try:
      return self._reader.read(path, [record])[0]
    except RuntimeError as error:
      return UndecodableExample(f'{type(error).__name__}: {error}')


def _split_of(name: str) -> str:
  """The split that the name of a file says."""
  match = _KNOWN.fullmatch(name) or _NUMBERED.fullmatch(name)
  return match[1] if match else _ONLY_SPLIT
