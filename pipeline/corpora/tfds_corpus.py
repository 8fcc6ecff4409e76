"""Random access to prepared TFDS datasets, without TensorFlow.

A corpus is read by ranges of one source shard (one ArrayRecord file). Every
example carries its TFDS id, `<file name>__<position>`, under the key
`tfds_id`: the same whatever the range, the worker or the order of reading.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any

import tensorflow_datasets as tfds

from influence_core import errors
from pipeline.corpora import record_files
from pipeline.storage import file_identity, files as storage, machine_cache

RawExample = Mapping[str, Any]

# Records read at a time: one by one, each costs as much as a compressed block.
_READ_TOGETHER = 256

ID_KEY = 'tfds_id'


@dataclasses.dataclass(frozen=True)
class SourceShard:
  """Part of one dataset file: examples [start, stop)."""

  name: str
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class UndecodableExample:
  """Stands for an example that could not be read."""

  reason: str


@dataclasses.dataclass(frozen=True)
class TfdsCorpus:
  """A split of a prepared TFDS dataset in ArrayRecord format.

  Attributes:
    dataset: name as in TFDS: 'mnist', 'mnist:3.0.1' or 'name/config'.
    split: TFDS split, e.g. 'train', 'test[:100]', 'train[10%:20%]'.
    data_dir: directory the dataset was prepared in, local or gs://.
  """

  dataset: str
  split: str
  data_dir: str

  def with_split(self, split: str) -> 'TfdsCorpus':
    return dataclasses.replace(self, split=split)

  def check(self) -> None:
    """Opens the corpus.

    Raises:
      errors.InputError: The dataset is not there, is not prepared as
        ArrayRecord, has no such split, a file of it is missing, or the split
        names an example twice.
    """
    shards = self.source_shards()
    _check_disjoint(self.split, shards)
    for name in dict.fromkeys(shard.name for shard in shards):
      self.shard_fingerprint(name)

  @functools.cached_property
  def _directory(self) -> str:
    return _version_directory(self.dataset, self.data_dir)

  @functools.cached_property
  def _builder(self) -> tfds.core.DatasetBuilder:
    path = self._directory
    builder = tfds.builder_from_directory(
      machine_cache.local_directory(path, without='array_record-')
    )
    file_format = builder.info.file_format
    if file_format is None or file_format.value != 'array_record':
      raise errors.InputError(
        f'{path} is in {file_format and file_format.value} format, expected '
        'array_record; prepare it with --file_format=array_record'
      )
    return builder

  @property
  def features(self) -> Mapping[str, Any]:
    """Features of an example by name, as TFDS describes them."""
    return dict(self._builder.info.features)

  @functools.cached_property
  def _instructions(self) -> list[Any]:
    splits = self._builder.info.splits
    try:
      slices = tfds.core.splits.AbstractSplit.from_spec(self.split)
      absolute = slices.to_absolute(splits)
      instructions = splits[self.split].file_instructions
    except (ValueError, KeyError) as error:
      raise errors.InputError(
        f'{self.dataset} in {self.data_dir} has no split {self.split!r}; it '
        f'has {", ".join(sorted(splits))}, each with an '
        "optional slice such as 'test[:100]'"
      ) from error
    if any((x.from_ or 0) > x.to for x in absolute if x.to is not None):
      raise errors.InputError(
        f'split {self.split!r} of {self.dataset} has a slice that ends before '
        'it begins; choose another one'
      )
    if not instructions:
      raise errors.InputError(
        f'split {self.split!r} of {self.dataset} holds no example; choose '
        'another slice'
      )
    return instructions

  @functools.cached_property
  def _records(self) -> record_files.RecordFiles:
    return record_files.RecordFiles()

  def source_shards(self) -> list[SourceShard]:
    """The parts of dataset files that make up the split, in order."""
    return [
      SourceShard(_base_name(part.filename), part.skip, part.skip + part.take)
      for part in self._instructions
    ]

  @property
  def num_examples(self) -> int:
    return sum(part.take for part in self._instructions)

  @functools.cached_property
  def _firsts(self) -> list[int]:
    """Position in the split of the first example of each part."""
    takes = [part.take for part in self._instructions]
    return list(itertools.accumulate(takes[:-1], initial=0))

  def shard_fingerprint(self, name: str) -> str:
    """Changes when the file does; read from the listing, not the content.

    Raises:
      errors.InputError: The file is missing.
    """
    path = storage.join(self._directory, name)
    identity = file_identity.identify(path)
    if identity is None:
      raise errors.InputError(
        f'{path} is missing; prepare {self.dataset} in {self.data_dir} again'
      )
    return identity.fingerprint

  def read_range(
    self, shard_name: str, start: int, stop: int
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples [start, stop) of a source shard, each with its id.

    Raises:
      errors.InputError: The file cannot be read at all.
    """
    return self.read_ids([f'{shard_name}__{x}' for x in range(start, stop)])

  def read_positions(
    self, positions: Sequence[int]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples by their position in the split, each with its id."""
    shards, firsts = self.source_shards(), self._firsts
    ids = []
    for position in positions:
      # A file may have several parts: `test[:3]+test[50:53]`.
      number = bisect.bisect_right(firsts, position) - 1
      record = shards[number].start + position - firsts[number]
      ids.append(f'{shards[number].name}__{record}')
    return self.read_ids(ids)

  def read_ids(
    self, ids: Sequence[str]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples by their ids."""
    for start in range(0, len(ids), _READ_TOGETHER):
      some = ids[start : start + _READ_TOGETHER]
      for name, group in itertools.groupby(some, _file_of):
        yield from self._read(name, list(group))

  def _read(
    self, name: str, ids: list[str]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples of one file."""
    path = storage.join(self._directory, name)
    positions = [int(text.rpartition('__')[2]) for text in ids]
    records: Sequence[bytes | UndecodableExample]
    try:
      records = self._records.read(path, positions)
    except RuntimeError:  # One of them is damaged: which one?
      records = [self._read_one(path, position) for position in positions]
    for example_id, record in zip(ids, records, strict=True):
      yield example_id, self._decode(example_id, record)

  def _read_one(self, path: str, position: int) -> bytes | UndecodableExample:
    try:
      return self._records.read(path, [position])[0]
    except RuntimeError as error:
      return UndecodableExample(f'{type(error).__name__}: {error}')

  def _decode(
    self, example_id: str, record: bytes | UndecodableExample
  ) -> RawExample | UndecodableExample:
    if isinstance(record, UndecodableExample):
      return record
    try:
      example = self._builder.info.features.deserialize_example_np(record)
    except Exception as error:  # Decoders raise whatever their format does.
      return UndecodableExample(f'{type(error).__name__}: {error}')
    return {**example, ID_KEY: example_id}


def _version_directory(dataset: str, data_dir: str) -> str:
  """Directory of the version asked for, or of the newest one."""
  name, _, wanted = dataset.partition(':')
  root = storage.join(storage.absolute(data_dir), name)
  versions = [
    version
    for version in storage.list_names(root)
    if tfds.core.utils.Version.is_valid(version)
  ]
  if wanted:
    versions = [version for version in versions if version == wanted]
  complete = [
    version
    for version in sorted(versions, key=tfds.core.utils.Version)
    if storage.exists(storage.join(root, version, 'dataset_info.json'))
  ]
  if not complete:
    raise errors.InputError(
      f'no prepared dataset {dataset} in data_dir {data_dir}; prepare it with: '
      f'tfds build {name} --data_dir={data_dir} --file_format=array_record'
    )
  return storage.join(root, complete[-1])


def _check_disjoint(split: str, shards: Sequence[SourceShard]) -> None:
  """Refuses a split with an example in two of its parts.

  Raises:
    errors.InputError: Names the file and the records.
  """
  ordered = sorted(shards, key=lambda shard: (shard.name, shard.start))
  for before, after in itertools.pairwise(ordered):
    if before.name == after.name and before.stop > after.start:
      raise errors.InputError(
        f'split {split!r} has records {after.start} to '
        f'{min(before.stop, after.stop) - 1} of {after.name} twice, expected '
        'each example once; choose slices that do not overlap'
      )


def _base_name(path: str) -> str:
  return path.rsplit('/', 1)[-1]


def _file_of(example_id: str) -> str:
  return example_id.rpartition('__')[0]
