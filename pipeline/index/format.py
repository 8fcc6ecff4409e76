"""The format of an index: one shard for each range of the corpus.

    INDEX/manifest-000001.json                 published generations
    INDEX/plans/plan-<run>.json                what a run set out to do
    INDEX/shards/rows-<range>-<fingerprint>-<repair>.parquet
    INDEX/shards/vectors-<range>-<fingerprint>-<attempt>.npy
    INDEX/rejected-<checksum>.parquet          examples left out, with reasons
    INDEX/locks/run-000007.json                who reindexes since when
    INDEX/searches/<search>/*.npz              queries and leaders of a search
                                               on a Beam runner, while it runs

A shard is two files. Vectors are [num_rows, projection_dim] in C order, as
`vector_codec` stores them, under a name of the attempt's own. The rows file
(id, loss, squared_gradient_norm and the task's columns) is written afterwards,
only if no other attempt has, and names the vectors with size and checksum in
its metadata: it is the commit. Projections are stored unscaled, so that
damping, the policy for negative eigenvalues, normalisation and a smaller
projection_dim stay choices of the query.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import re
from typing import Any
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.index import shard_files, vector_codec
from pipeline.storage import checked_files, files as storage, fingerprints

SCHEMA_VERSION = 2
# The fingerprint `rows` of an index with a row for each token.
TOKEN_ROWS = 'tokens'

# Files of shards, and what a killed writer leaves of them.
_SHARD_FILE = re.compile(r'(?:rows|vectors)-(.+)-\w+\.(?:parquet|npy)')


@dataclasses.dataclass(frozen=True)
class ExampleRange:
  """A unit of work: examples [start, stop) of one source shard.

  Attributes:
    source_shard: file name of the dataset.
    start: first record.
    stop: one past the last record.
    fingerprint: of the source file, task, basis and schema.
  """

  source_shard: str
  start: int
  stop: int
  fingerprint: str

  def __post_init__(self):
    checked_files.check_name(self.source_shard)
    if '/' in self.source_shard or not 0 <= self.start < self.stop:
      raise ValueError(
        f'{self.source_shard!r} {self.start} to {self.stop} is no range'
      )

  @property
  def num_examples(self) -> int:
    return self.stop - self.start

  def overlaps(self, other: 'ExampleRange') -> bool:
    """Whether both have some example."""
    return (
      self.source_shard == other.source_shard
      and self.start < other.stop
      and other.start < self.stop
    )

  @property
  def stem(self) -> str:
    """The part of shard file names that all attempts share."""
    return (
      f'{self.source_shard}-{self.start:09d}-{self.stop:09d}-{self.fingerprint}'
    )


@dataclasses.dataclass(frozen=True)
class Shard:
  """A committed shard, as the manifest lists it."""

  range: ExampleRange
  rows: checked_files.StoredFile
  vectors: checked_files.StoredFile
  num_written: int
  num_rejected: int

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  def __post_init__(self):
    for file in (self.rows, self.vectors):
      checked_files.check_file(file)
    if self.num_written < 0 or self.num_rejected < 0:
      raise ValueError(
        f'{self.num_written} rows and {self.num_rejected} rejected examples '
        'cannot be'
      )


@dataclasses.dataclass(frozen=True)
class ShardContent:
  """What a shard holds, in memory.

  Attributes:
    vectors: [num_rows, projection_dim] float32.
    rows: table of num_rows rows with columns id, loss, squared_gradient_norm
      and the task's own.
    rejected: reason by id of the examples of the range that are left out.
  """

  vectors: np.ndarray
  rows: pa.Table
  rejected: dict[str, str]


def shards_directory(index: str) -> str:
  return storage.join(index, 'shards')


def write_shard(
  index: str,
  example_range: ExampleRange,
  content: ShardContent,
  codec: vector_codec.VectorCodec,
) -> Shard:
  """Commits a shard, or adopts the one another attempt committed first.

  Args:
    index: directory of the index.
    example_range: what the content was computed from.
    content: rows and vectors; together with the rejected examples they must
      account for every example of the range.
    codec: how vectors are stored.

  Returns:
    The shard that is committed now. It may be another attempt's, whose last
    bits can differ from `content` on accelerators.
  """
  directory = shards_directory(index)
  _check_accounts(example_range, content.rows, content.rejected)
  stored = codec.encode(content.vectors)
  table = content.rows
  if not codec.is_exact:
    norms = codec.error_norms(content.vectors, stored)
    table = table.append_column(shard_files.ERROR_COLUMN, pa.array(norms))
  vectors = shard_files.encode_vectors(stored)
  name = f'vectors-{example_range.stem}-{uuid.uuid4().hex[:12]}.npy'
  storage.create_exclusive(storage.join(directory, name), vectors)
  file = shard_files.RowsFile(
    table, checked_files.StoredFile.of(name, vectors), content.rejected
  )
  rows = shard_files.encode_rows(table, file.vectors, file.rejected)
  repair = 0
  while True:
    path = storage.join(directory, _rows_name(example_range, repair))
    if storage.create_exclusive(path, rows):
      return _describe(example_range, path, rows, file)
    winner = _intact_shard(index, example_range, repair)
    if winner:
      return winner
    repair += 1


def find_shard(index: str, example_range: ExampleRange) -> Shard | None:
  """The committed, intact shard of a range, or None.

  A damaged shard is passed over: its repair is committed under the next name,
  so that nothing a reader may hold open is ever deleted or replaced.
  """
  repair = 0
  while storage.exists(
    storage.join(shards_directory(index), _rows_name(example_range, repair))
  ):
    shard = _intact_shard(index, example_range, repair)
    if shard:
      return shard
    repair += 1
  return None


def missing_files(index: str, shards: Iterable[Shard]) -> list[str]:
  """Files of shards that are absent or of another size.

  From one listing, so that it can be asked at any time; `verify` reads them.
  """
  found = storage.sizes(shards_directory(index))
  return [
    file.name
    for shard in shards
    for file in (shard.rows, shard.vectors)
    if found.get(file.name) != file.num_bytes
  ]


def read_shard(
  index: str, shard: Shard, codec: vector_codec.VectorCodec
) -> ShardContent:
  """Reads a shard and checks sizes, checksums, shapes and row counts.

  Raises:
    storage.DamagedFileError: Names the file and what is wrong with it.
  """
  vectors = read_vectors(index, shard, codec)
  rows = _read_rows_file(index, shard)
  return ShardContent(vectors, rows.table, rows.rejected)


def read_vectors(
  index: str, shard: Shard, codec: vector_codec.VectorCodec
) -> np.ndarray:
  """[num_rows, projection_dim] float32 of a shard, sizes and sums checked."""
  data = _read_vectors_file(index, shard)
  offset = shard_files.rows_offset(
    vectors_path(index, shard), data, len(data), shard.num_written, codec
  )
  return codec.decode(codec.rows(data, offset))


def read_rows(
  index: str, shard: Shard, columns: Sequence[str] | None = None
) -> pa.Table:
  """Columns of the rows of a shard (all by default)."""
  rows = _read_rows_file(index, shard).table
  return rows if columns is None else rows.select(list(columns))


def read_rejected(index: str, shard: Shard) -> dict[str, str]:
  """Reason by id of the examples of a shard's range that are left out."""
  return _read_rows_file(index, shard).rejected


def vectors_path(index: str, shard: Shard) -> str:
  return storage.join(shards_directory(index), shard.vectors.name)


def stem_of(name: str) -> str | None:
  """The stem of the range that a file of an index belongs to, if any."""
  match = _SHARD_FILE.match(name)
  return match and match[1]


def _rows_name(example_range: ExampleRange, repair: int) -> str:
  return f'rows-{example_range.stem}-{repair}.parquet'


def _read_vectors_file(index: str, shard: Shard) -> bytes:
  return checked_files.read_checked(vectors_path(index, shard), shard.vectors)


def _read_rows_file(index: str, shard: Shard) -> shard_files.RowsFile:
  path = storage.join(shards_directory(index), shard.rows.name)
  rows = shard_files.parse_rows(
    path, checked_files.read_checked(path, shard.rows)
  )
  if rows.table.num_rows != shard.num_written:
    raise storage.DamagedFileError(
      f'{path} has {rows.table.num_rows} rows, expected {shard.num_written}; '
      'run project again'
    )
  return rows


def _describe(
  example_range: ExampleRange,
  path: str,
  data: bytes,
  rows: shard_files.RowsFile,
) -> Shard:
  """The shard whose rows file has content `data`, which says `rows`."""
  return Shard(
    range=example_range,
    rows=checked_files.StoredFile.of(path.rsplit('/', 1)[-1], data),
    vectors=rows.vectors,
    num_written=rows.table.num_rows,
    num_rejected=len(rows.rejected),
  )


def _intact_shard(
  index: str, example_range: ExampleRange, repair: int
) -> Shard | None:
  """The shard committed under this name, None if a file of it is damaged."""
  path = storage.join(
    shards_directory(index), _rows_name(example_range, repair)
  )
  try:
    data = storage.read_bytes(path)
    rows = shard_files.parse_rows(path, data)
    _check_accounts(example_range, rows.table, rows.rejected)
    shard = _describe(example_range, path, data, rows)
    _read_vectors_file(index, shard)
  except storage.DamagedFileError:
    return None
  return shard


def _check_accounts(
  example_range: ExampleRange, rows: pa.Table, rejected: dict[str, str]
) -> None:
  num_examples = rows.num_rows
  if {*shard_files.TOKEN_COLUMNS} <= {*rows.column_names}:
    num_examples = len(pc.unique(rows['id']))
  if num_examples + len(rejected) != example_range.num_examples:
    raise storage.DamagedFileError(
      f'{example_range.stem} has {num_examples} examples and {len(rejected)} '
      f'rejected ones, expected {example_range.num_examples} together'
    )


def range_fingerprint(source: str, projection: Mapping[str, str]) -> str:
  """Ties a shard to its source file and to all that projections depend on."""
  return fingerprints.of_json(
    {'schema_version': SCHEMA_VERSION, 'source': source, **projection}
  )
