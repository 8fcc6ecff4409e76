"""Random access to prepared TFDS datasets, without TensorFlow."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import tensorflow_datasets as tfds

from influence_core import errors
from pipeline.corpora import record_readers, splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
  read_each,
)
from pipeline.storage import file_identity, files as storage, machine_cache


@dataclasses.dataclass(frozen=True)
class TfdsCorpus(Corpus):
  """A split of a prepared TFDS dataset: ArrayRecord, TFRecord or Parquet.

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

  @functools.cached_property
  def _directory(self) -> str:
    return _version_directory(self.dataset, self.data_dir)

  @functools.cached_property
  def _builder(self) -> tfds.core.DatasetBuilder:
    path = self._directory
    return tfds.builder_from_directory(
      machine_cache.local_directory(path, without='-of-')
    )

  @functools.cached_property
  def _reader(self) -> record_readers.RecordReader:
    file_format = self._builder.info.file_format
    name = file_format.value if file_format else 'unknown'
    if name not in record_readers.READERS:
      raise errors.InputError(
        f'{self._directory} is in {name} format, expected '
        f'{", ".join(record_readers.READERS)}; prepare it with '
        '--file_format=array_record'
      )
    return record_readers.READERS[name]()

  @property
  def features(self) -> Mapping[str, Any]:
    """Features of an example by name, as TFDS describes them."""
    return dict(self._builder.info.features)

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    files = {
      name: list(zip(sorted(info.filenames), info.shard_lengths, strict=True))
      for name, info in self._builder.info.splits.items()
    }
    return splits.choose(
      files, self.split, of=f'{self.dataset} in {self.data_dir}'
    )

  def check(self) -> None:
    _ = self._reader  # The format is one that can be read.
    super().check()

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    path = storage.join(self._directory, name)
    identity = file_identity.identify(path)
    if identity is None:
      raise errors.InputError(
        f'{path} is missing; prepare {self.dataset} in {self.data_dir} again'
      )
    return identity.fingerprint

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Iterator[RawExample | UndecodableExample]:
    path = storage.join(self._directory, name)
    read = functools.partial(self._reader.read, path)
    return map(self._decode, read_each(read, records))

  def _decode(
    self, record: bytes | UndecodableExample
  ) -> RawExample | UndecodableExample:
    if isinstance(record, UndecodableExample):
      return record
    try:
      return self._builder.info.features.deserialize_example_np(record)
    except Exception as error:  # Decoders raise whatever their format does.
      return UndecodableExample.of(error)


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
