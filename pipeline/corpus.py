"""Random access to prepared TFDS datasets, without TensorFlow.

A corpus is read by ranges of one source shard (one ArrayRecord file). Every
example carries its TFDS id, `<file name>__<position>`, under the key
`tfds_id`: the same whatever the range, the worker or the order of reading.
"""

import bisect
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import fsspec
import tensorflow_datasets as tfds

from influence_core import errors
from pipeline import fingerprints, storage

RawExample = Mapping[str, Any]

# Records read at a time: one by one, each costs as much as a compressed block.
_READ_TOGETHER = 256

ID_KEY = 'tfds_id'

# What identifies the content of a file in fsspec's listings: checksums and
# generations of object stores where there are any, size and time otherwise.
_IDENTITY_KEYS = ('size', 'crc32c', 'md5Hash', 'etag', 'ETag', 'generation')


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
        ArrayRecord, has no such split, or a file of it is missing.
    """
    for shard in self.source_shards():
      self.shard_fingerprint(shard.name)

  @functools.cached_property
  def _builder(self) -> tfds.core.DatasetBuilder:
    path = _version_directory(self.dataset, self.data_dir)
    builder = tfds.builder_from_directory(path)
    file_format = builder.info.file_format
    if file_format is None or file_format.value != 'array_record':
      raise errors.InputError(
        f'{path} is in {file_format and file_format.value} format, expected '
        'array_record; prepare it with --file_format=array_record'
      )
    return builder

  @functools.cached_property
  def _instructions(self) -> list[Any]:
    try:
      instructions = self._builder.info.splits[self.split].file_instructions
    except (ValueError, KeyError) as error:
      raise errors.InputError(
        f'{self.dataset} in {self.data_dir} has no split {self.split!r}; it '
        f'has {", ".join(sorted(self._builder.info.splits))}, each with an '
        "optional slice such as 'test[:100]'"
      ) from error
    if not instructions:
      raise errors.InputError(
        f'split {self.split!r} of {self.dataset} holds no example; choose '
        'another slice'
      )
    return instructions

  @functools.cached_property
  def _source(self) -> Any:
    return self._builder.as_data_source(self.split)

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
  def _offsets(self) -> dict[str, int]:
    """Position in the split of what would be record 0 of each file."""
    offsets, position = {}, 0
    for part in self._instructions:
      offsets[_base_name(part.filename)] = position - part.skip
      position += part.take
    return offsets

  def shard_fingerprint(self, name: str) -> str:
    """Changes when the file does; read from the listing, not the content.

    Raises:
      errors.InputError: The file is missing.
    """
    path = storage.join(str(self._builder.data_path), name)
    filesystem, location = fsspec.core.url_to_fs(path)
    try:
      info = filesystem.info(location)
    except FileNotFoundError as error:
      raise errors.InputError(
        f'{path} is missing; prepare {self.dataset} in {self.data_dir} again'
      ) from error
    identity = {key: info[key] for key in _IDENTITY_KEYS if key in info}
    if identity.keys() == {'size'}:
      identity['modified'] = str(info.get('mtime', info.get('created')))
    return fingerprints.of_json(identity)

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
    shards = self.source_shards()
    firsts = [self._offsets[shard.name] + shard.start for shard in shards]
    names = [
      shards[bisect.bisect_right(firsts, position) - 1].name
      for position in positions
    ]
    return self.read_ids(
      [
        f'{name}__{position - self._offsets[name]}'
        for name, position in zip(names, positions, strict=True)
      ]
    )

  def read_ids(
    self, ids: Sequence[str]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples by their ids."""
    for start in range(0, len(ids), _READ_TOGETHER):
      some = ids[start : start + _READ_TOGETHER]
      positions = [
        self._offsets[name] + int(record)
        for name, _, record in (text.rpartition('__') for text in some)
      ]
      try:
        examples = self._source.__getitems__(positions)
      except Exception:  # One of them cannot be decoded: which one?
        examples = [self._read(position) for position in positions]
      for example_id, example in zip(some, examples, strict=True):
        if not isinstance(example, UndecodableExample):
          example = {**example, ID_KEY: example_id}
        yield example_id, example

  def _read(self, position: int) -> RawExample | UndecodableExample:
    try:
      return self._source[position]
    except Exception as error:  # Decoders raise whatever their format does.
      return UndecodableExample(f'{type(error).__name__}: {error}')


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


def _base_name(path: str) -> str:
  return path.rsplit('/', 1)[-1]
