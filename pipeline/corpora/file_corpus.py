"""Examples in files that people have: Parquet, Arrow, JSON Lines, CSV, arrays.

Rows are dictionaries by the names of columns, as `Task.preprocess` gets them.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import functools
import itertools

import numpy as np

from influence_core import errors
from pipeline.corpora import file_names, recent, row_readers, splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
  read_each,
)
from pipeline.storage import file_identity, files as storage, fingerprints


@dataclasses.dataclass(frozen=True)
class FileCorpus(Corpus):
  """Rows of .parquet, .arrow, .jsonl, .csv, .tsv, .npy, .npz; text also .gz.

  Files of a directory belong to the split that their names begin with, as
  `train-00000-of-00008.parquet` and `test.jsonl` do, or that the directory of
  the file is named after, as Hugging Face's `save_to_disk` writes them; where
  none says so, to 'train'. Text may be compressed, .gz or .zst. Each .npy file
  is a column: `x_train.npy` and `y_train.npy` are x and y of the split 'train'.

  Attributes:
    path: of a file, or a directory with files of one kind, local or gs://.
    split: as in TFDS, e.g. 'train', 'test[:100]', 'train[10%:20%]'.
    columns: to be read; empty for all.
  """

  path: str
  split: str = file_names.ONLY_SPLIT
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
  def _files(self) -> dict[str, list[str]]:
    """Places in the directory of the files of each source shard, in order.

    Raises:
      errors.InputError: There is none, or there are several kinds.
    """
    path = storage.absolute(self.path)
    names = [path.removeprefix(f'{self._root}/')]
    if path == self._root:
      names = [*filter(row_readers.kind_of, file_identity.tree(path))]
    kinds = sorted({str(row_readers.kind_of(name)) for name in names})
    if len(kinds) != 1 or kinds == ['None']:
      raise errors.InputError(
        f'{self.path} has {" and ".join(kinds) or "no"} files, expected those '
        f'of one kind: {", ".join(row_readers.READERS)}'
      )
    found: dict[str, list[str]] = {}
    for name in names:
      found.setdefault(file_names.shard_of(name), []).append(name)
    chosen = {shard: self._choose(shard, own) for shard, own in found.items()}
    return self._check_columns(chosen)

  def _choose(self, shard: str, names: list[str]) -> list[str]:
    """Those of the files of a source shard that have columns to be read.

    Raises:
      errors.InputError: Several files stand for the same.
    """
    if row_readers.kind_of(shard) != file_names.ARRAY_SUFFIX:
      if len(names) > 1:
        raise errors.InputError(
          f'{self.path} has {" and ".join(names)}, whose places differ only in '
          '/ and ., expected others; rename them'
        )
      return names
    columns = {file_names.column_of(name): name for name in names}
    if len(columns) < len(names):
      raise errors.InputError(
        f'{self.path} has {", ".join(names)} for columns {", ".join(columns)} '
        f'of {shard}, expected one file for each; rename them'
      )
    recent.check_columns(f'{self.path} ({shard})', self.columns, columns)
    return [columns[column] for column in self.columns or columns]

  def _check_columns(self, files: dict[str, list[str]]) -> dict[str, list[str]]:
    """Raises `errors.InputError` if arrays of a split have other columns."""
    found: dict[str, tuple[str, set[str]]] = {}
    for shard, names in files.items():
      if row_readers.kind_of(shard) == file_names.ARRAY_SUFFIX:
        columns = {file_names.column_of(name) for name in names}
        first, expected = found.setdefault(
          file_names.split_of(names[0]), (shard, columns)
        )
        if columns != expected:
          raise errors.InputError(
            f'{shard} of {self.path} has columns {", ".join(sorted(columns))}, '
            f'expected {", ".join(sorted(expected))} as {first}; add the files '
            'that are missing, or choose columns'
          )
    return files

  @functools.cached_property
  def _reader(self) -> row_readers.RowReader:
    kind = row_readers.kind_of(next(iter(self._files)))
    return row_readers.READERS[str(kind)](self.columns)

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    by_split: dict[str, list[tuple[str, int]]] = {}
    for shard, names in self._files.items():
      counts = {
        path: self._reader.num_rows(path) for path in self.paths_of(shard)
      }
      if len({*counts.values()}) > 1:
        raise errors.InputError(
          f'rows of {shard} are {counts}, expected as many in each file; write '
          'them again'
        )
      split = file_names.split_of(names[0])
      by_split.setdefault(split, []).append((shard, min(counts.values())))
    return splits.choose(by_split, self.split, of=self.path)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    found = []
    for path in self.paths_of(name):
      identity = file_identity.identify(path)
      if identity is None:
        raise errors.InputError(f'{path} is missing; write it again')
      found.append(identity.fingerprint)
    return found[0] if len(found) == 1 else fingerprints.of_json(found)

  def paths_of(self, name: str) -> list[str]:
    """Where the files of a source shard are."""
    return [storage.join(self._root, place) for place in self._files[name]]

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Sequence[RawExample | UndecodableExample]:
    return read_each(functools.partial(self._read, name), records)

  def read_columns(self, part: SourceShard) -> Mapping[str, np.ndarray]:
    reader = self._reader
    found: dict[str, np.ndarray] = {}
    if isinstance(reader, row_readers.ColumnReader):
      for path in self.paths_of(part.name):
        try:
          found |= reader.read_columns(path, part.start, part.stop)
        except RuntimeError:
          return {}  # The rows tell which.
    return found

  def _read(self, name: str, records: Sequence[int]) -> list[RawExample]:
    """Rows of a source shard, with the columns of all its files."""
    parts = [self._reader.read(path, records) for path in self.paths_of(name)]
    if len(parts) == 1:
      return parts[0]
    return [
      dict(itertools.chain(*(part.items() for part in row)))
      for row in zip(*parts, strict=True)
    ]
