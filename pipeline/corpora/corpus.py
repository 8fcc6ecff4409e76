"""What a corpus is: examples in files, read by ranges of a file.

A file, or a part of it, is a *source shard*: the unit that is fingerprinted,
and that no range crosses. An example is known by its id, `<file>__<record>`,
the same whatever the range, the worker or the order of reading; a raw example
has it under the key `tfds_id`.
"""

import abc
import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses
import functools
import itertools
from typing import Any, Self, TypeVar

import numpy as np

from influence_core import errors

RawExample = Mapping[str, Any]
Read = TypeVar('Read')

# Records read at a time: one by one, each costs as much as a compressed block.
READ_TOGETHER = 256
# Of the name of a source shard: that of a file has 255, in an index with range,
# fingerprint and attempt.
_MAX_NAME_BYTES = 150
ID_KEY = 'tfds_id'


@dataclasses.dataclass(frozen=True)
class SourceShard:
  """Part of one file: examples [start, stop)."""

  name: str
  start: int
  stop: int


@dataclasses.dataclass(frozen=True)
class UndecodableExample:
  """Stands for an example that could not be read; the reason is one line."""

  reason: str

  @classmethod
  def of(cls, error: Exception) -> Self:
    return cls(f'{type(error).__name__}: {errors.first_line(error)}')


class Corpus(abc.ABC):
  """Examples that are read by range, by position and by id.

  A kind of corpus says which parts of which files it has, what changes when a
  file does, and how records of a file are read. It is a frozen dataclass of
  small values, made anew in every process.
  """

  @abc.abstractmethod
  def source_shards(self) -> list[SourceShard]:
    """The parts of files that make up the corpus, in order.

    Raises:
      errors.InputError: Nothing is there, or it is of another kind.
    """

  @abc.abstractmethod
  def shard_fingerprint(self, name: str) -> str:
    """Changes when the file does; read from the listing, not the content.

    Raises:
      errors.InputError: The file is missing.
    """

  @abc.abstractmethod
  def with_split(self, split: str) -> Self:
    """Another split of the same data, such as 'test[:100]'."""

  @abc.abstractmethod
  def read_records(
    self, name: str, records: Sequence[int]
  ) -> Iterable[RawExample | UndecodableExample]:
    """Records of one file, in the order of `records`, without ids.

    Raises:
      errors.InputError: The file cannot be read at all.
    """

  def read_columns(self, part: SourceShard) -> Mapping[str, np.ndarray]:
    """Features of a part of a file that can be read without reading rows.

    Args:
      part: of one file.

    Returns:
      [num_examples, ...] arrays by name, each what `np.stack` makes of that
      feature of all examples; those that are no arrays in the file are left
      out. Whoever gets them does not change them.

    Raises:
      errors.InputError: The file cannot be read at all.
    """
    del part
    return {}

  def to_json(self) -> dict[str, Any]:
    """What the corpus was made of, by name."""
    own: Any = self
    return dataclasses.asdict(own)

  def check(self) -> None:
    """Opens the corpus.

    Raises:
      errors.InputError: See `source_shards`; or a file of it is missing or has
        too long a name, or it has an example twice.
    """
    shards = self.source_shards()
    _check_disjoint(shards)
    _check_lengths(shards)
    for name in dict.fromkeys(shard.name for shard in shards):
      self.shard_fingerprint(name)

  @functools.cached_property
  def num_examples(self) -> int:
    return sum(shard.stop - shard.start for shard in self.source_shards())

  @functools.cached_property
  def _firsts(self) -> list[int]:
    """Position in the corpus of the first example of each part."""
    sizes = [shard.stop - shard.start for shard in self.source_shards()]
    return list(itertools.accumulate(sizes[:-1], initial=0))

  def read_range(
    self, shard_name: str, start: int, stop: int
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples [start, stop) of a source shard, each with its id.

    Raises:
      errors.InputError: The file cannot be read at all.
    """
    return self.read_ids([id_of(shard_name, x) for x in range(start, stop)])

  def read_positions(
    self, positions: Sequence[int]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples by their position in the corpus, each with its id."""
    shards, firsts = self.source_shards(), self._firsts
    ids = []
    for position in positions:
      # A file may have several parts: `test[:3]+test[50:53]`.
      number = bisect.bisect_right(firsts, position) - 1
      record = shards[number].start + position - firsts[number]
      ids.append(id_of(shards[number].name, record))
    return self.read_ids(ids)

  def read_ids(
    self, ids: Sequence[str]
  ) -> Iterator[tuple[str, RawExample | UndecodableExample]]:
    """Examples by their ids."""
    for start in range(0, len(ids), READ_TOGETHER):
      some = ids[start : start + READ_TOGETHER]
      for name, group in itertools.groupby(some, _file_of):
        own = list(group)
        records = list(map(record_of, own))
        found = self.read_records(name, records)
        for example_id, raw in zip(own, found, strict=True):
          if not isinstance(raw, UndecodableExample):
            raw = {**raw, ID_KEY: example_id}
          yield example_id, raw


def read_each(
  read: Callable[[Sequence[int]], Sequence[Read]], records: Sequence[int]
) -> list[Read | UndecodableExample]:
  """Records, those that cannot be read marked, where reading all fails.

  Args:
    read: raises RuntimeError if one of the records cannot be read.
    records: which.
  """
  try:
    return list(read(records))
  except RuntimeError as error:
    if len(records) == 1:
      return [UndecodableExample.of(error)]
    return [x for record in records for x in read_each(read, [record])]


def _check_disjoint(shards: Sequence[SourceShard]) -> None:
  """Raises `errors.InputError` if an example is in two parts; names them."""
  ordered = sorted(shards, key=lambda shard: (shard.name, shard.start))
  for before, after in itertools.pairwise(ordered):
    if before.name == after.name and before.stop > after.start:
      raise errors.InputError(
        f'the split has records {after.start} to '
        f'{min(before.stop, after.stop) - 1} of {after.name} twice, expected '
        'each example once; choose slices that do not overlap'
      )


def _check_lengths(shards: Sequence[SourceShard]) -> None:
  """Raises `errors.InputError` if no file can be named after a source shard."""
  for shard in shards:
    if (num_bytes := len(shard.name.encode())) > _MAX_NAME_BYTES:
      raise errors.InputError(
        f'the source shard {shard.name} has a name of {num_bytes} bytes, '
        f'expected at most {_MAX_NAME_BYTES}, since files of an index are '
        'named after it; shorten the names of files or folders'
      )


def id_of(name: str, record: int) -> str:
  """The id of a record of a source shard."""
  return f'{name}__{record}'


def record_of(example_id: str) -> int:
  """The number of the record; ValueError if it is no such id."""
  return int(example_id.rpartition('__')[2])


def _file_of(example_id: str) -> str:
  return example_id.rpartition('__')[0]
