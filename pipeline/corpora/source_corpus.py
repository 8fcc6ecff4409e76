"""Examples of any Python object with a length and items, as Grain's sources."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
from typing import Any, Protocol

from influence_core import errors
from pipeline.corpora import splits
from pipeline.corpora.corpus import (
  Corpus,
  RawExample,
  SourceShard,
  UndecodableExample,
)
from pipeline.storage import fingerprints


class RandomAccessSource(Protocol):
  """What Grain's RandomAccessDataSource and MapDataset are."""

  def __len__(self) -> int: ...

  def __getitem__(self, index: int, /) -> Any: ...


@dataclasses.dataclass(frozen=True)
class SourceCorpus(Corpus):
  """Examples of sources; the task function makes them in every process.

  What is in a source cannot be seen from outside, so its name and version stand
  for it: a new version projects all of it anew. Examples are dictionaries;
  anything else is under the key `example`.

  Attributes:
    sources: by split.
    name: of the data.
    version: another one where the data have changed.
    split: as in TFDS.
  """

  sources: Mapping[str, RandomAccessSource]
  name: str
  version: str
  split: str = 'train'

  def with_split(self, split: str) -> 'SourceCorpus':
    return dataclasses.replace(self, split=split)

  def to_json(self) -> dict[str, Any]:
    return {'name': self.name, 'version': self.version, 'split': self.split}

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    files = {
      split: [(f'{self.name}-{split}', len(source))]
      for split, source in self.sources.items()
    }
    return splits.choose(files, self.split, of=self.name)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    source = self._source(name)
    return fingerprints.of_json([name, self.version, len(source)])

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Iterator[RawExample | UndecodableExample]:
    source = self._source(name)
    return (self._read(source, record) for record in records)

  def _source(self, name: str) -> RandomAccessSource:
    split = name.removeprefix(f'{self.name}-')
    if split not in self.sources:
      raise errors.InputError(
        f'{self.name} has no source {split!r}; it has {", ".join(self.sources)}'
      )
    return self.sources[split]

  def _read(
    self, source: RandomAccessSource, record: int
  ) -> RawExample | UndecodableExample:
    try:
      example = source[record]
    except Exception as error:  # Whatever the user's code raises.
      return UndecodableExample(f'{type(error).__name__}: {error}')
    return example if isinstance(example, Mapping) else {'example': example}
