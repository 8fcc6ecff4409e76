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


# What repeats without end says that it has more.
_MAX_EXAMPLES = 1 << 48


@dataclasses.dataclass(frozen=True)
class SourceCorpus(Corpus):
  """Examples of sources; the task function makes them in every process.

  What is in a source cannot be seen from outside, so its name and version stand
  for it: a new version projects all of it anew. Examples are dictionaries;
  anything else is under the key `example`. None, which Grain has in place of
  what `filter` leaves out, is an example that cannot be read.

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

  def __post_init__(self):
    if '/' in self.name:
      raise errors.InputError(
        f'the name of a corpus is {self.name!r}, expected one without /, since '
        'ids and files of an index begin with it'
      )

  def with_split(self, split: str) -> 'SourceCorpus':
    return dataclasses.replace(self, split=split)

  def to_json(self) -> dict[str, Any]:
    return {'name': self.name, 'version': self.version, 'split': self.split}

  @functools.cached_property
  def _shards(self) -> list[SourceShard]:
    files = {
      split: [(f'{self.name}-{split}', self._size(split))]
      for split in self.sources
    }
    return splits.choose(files, self.split, of=self.name)

  def source_shards(self) -> list[SourceShard]:
    return self._shards

  def shard_fingerprint(self, name: str) -> str:
    split = self._split(name)
    return fingerprints.of_json([name, self.version, self._size(split)])

  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Iterator[RawExample | UndecodableExample]:
    source = self.sources[self._split(name)]
    return (self._read(source, record) for record in records)

  def _split(self, name: str) -> str:
    """The split that a source shard is."""
    split = name.removeprefix(f'{self.name}-')
    if split not in self.sources:
      raise errors.InputError(
        f'{self.name} has no source {split!r}; it has {", ".join(self.sources)}'
      )
    return split

  def _size(self, split: str) -> int:
    source = self.sources[split]
    try:
      size = len(source)
    except Exception as error:  # Whatever the user's code raises.
      raise errors.InputError(
        f'source {split!r} of {self.name} is a {type(source).__name__} without '
        f'length ({errors.first_line(error)}), expected items by position; '
        'give a list or a grain.MapDataset, not what to_iter_dataset makes'
      ) from error
    if size > _MAX_EXAMPLES:
      raise errors.InputError(
        f'source {split!r} of {self.name} has {size} examples, expected each '
        'of them once; leave out repeat()'
      )
    return size

  def _read(
    self, source: RandomAccessSource, record: int
  ) -> RawExample | UndecodableExample:
    try:
      example = source[record]
    except Exception as error:  # Whatever the user's code raises.
      return UndecodableExample.of(error)
    if example is None:
      return UndecodableExample('the source has None, as after filter of Grain')
    return example if isinstance(example, Mapping) else {'example': example}
