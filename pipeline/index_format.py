"""The format of an index: one shard for each range of the corpus.

    INDEX/manifest-000001.json                 published generations
    INDEX/plans/plan-<fingerprint>.json        what a run set out to do
    INDEX/shards/rows-<range>-<fingerprint>-<repair>.parquet
    INDEX/shards/vectors-<range>-<fingerprint>-<attempt>.npy
    INDEX/rejected-000001.parquet              examples left out, with reasons

A shard is two files. Vectors are [num_rows, projection_dim] little-endian
float32 in C order, under a name of the attempt's own. The rows file (id, loss,
squared_gradient_norm and the task's columns) is written afterwards, only if no
other attempt has, and names the vectors with size and checksum in its metadata:
it is the commit. Projections are stored unscaled, so that damping, the policy
for negative eigenvalues, normalisation and a smaller projection_dim stay
choices of the query.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import io
import json
import re
from typing import Any
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import fingerprints, storage

SCHEMA_VERSION = 1
VECTOR_DTYPE = np.dtype('<f4')

_METADATA_KEY = b'influence_shard'
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

  @property
  def num_examples(self) -> int:
    return self.stop - self.start

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
  rows: storage.StoredFile
  vectors: storage.StoredFile
  num_written: int
  num_rejected: int

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, content: dict[str, Any]) -> 'Shard':
    return cls(
      range=ExampleRange(**content['range']),
      rows=storage.StoredFile(**content['rows']),
      vectors=storage.StoredFile(**content['vectors']),
      num_written=content['num_written'],
      num_rejected=content['num_rejected'],
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
  index: str, example_range: ExampleRange, content: ShardContent
) -> Shard:
  """Commits a shard, or adopts the one another attempt committed first.

  Args:
    index: directory of the index.
    example_range: what the content was computed from.
    content: rows and vectors; together with the rejected examples they must
      account for every example of the range.

  Returns:
    The shard that is committed now. It may be another attempt's, whose last
    bits can differ from `content` on accelerators.
  """
  directory = shards_directory(index)
  _check_accounts(example_range, content.rows.num_rows, content.rejected)
  vectors = _encode_vectors(content.vectors)
  name = f'vectors-{example_range.stem}-{uuid.uuid4().hex[:12]}.npy'
  storage.create_exclusive(storage.join(directory, name), vectors)
  rows = _encode_rows(content, storage.StoredFile.of(name, vectors))
  repair = 0
  while True:
    path = storage.join(directory, _rows_name(example_range, repair))
    if storage.create_exclusive(path, rows):
      return _describe(example_range, path, rows)
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


def read_shard(index: str, shard: Shard) -> ShardContent:
  """Reads a shard and checks sizes, checksums, shapes and row counts.

  Raises:
    storage.DamagedFileError: Names the file and what is wrong with it.
  """
  vectors = read_vectors(index, shard)
  rows, metadata = _decode_rows(index, shard.rows)
  if not len(vectors) == rows.num_rows == shard.num_written:
    raise storage.DamagedFileError(
      f'{shard.rows.name} has {rows.num_rows} rows and its vectors file '
      f'{len(vectors)}, expected {shard.num_written}; run project again'
    )
  return ShardContent(vectors, rows, metadata['rejected'])


def read_vectors(index: str, shard: Shard) -> np.ndarray:
  """[num_rows, projection_dim] float32 of a shard, sizes and sums checked."""
  path = storage.join(shards_directory(index), shard.vectors.name)
  data = storage.read_checked(
    path, num_bytes=shard.vectors.num_bytes, crc32c=shard.vectors.crc32c
  )
  try:
    vectors = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
  except ValueError as error:
    raise storage.DamagedFileError(f'{path} is no .npy file') from error
  if vectors.dtype != VECTOR_DTYPE or vectors.ndim != 2:
    raise storage.DamagedFileError(
      f'{path} holds {vectors.dtype} with shape {vectors.shape}, expected '
      f'{VECTOR_DTYPE} of rank 2'
    )
  return vectors


def read_rows(
  index: str, shard: Shard, columns: Sequence[str] | None = None
) -> pa.Table:
  """Columns of the rows of a shard (all by default)."""
  rows, _ = _decode_rows(index, shard.rows)
  return rows if columns is None else rows.select(list(columns))


def stem_of(name: str) -> str | None:
  """The stem of the range that a file of an index belongs to, if any."""
  match = _SHARD_FILE.match(name)
  return match and match[1]


def _rows_name(example_range: ExampleRange, repair: int) -> str:
  return f'rows-{example_range.stem}-{repair}.parquet'


def _encode_vectors(vectors: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.lib.format.write_array(
    buffer, np.ascontiguousarray(vectors, VECTOR_DTYPE), allow_pickle=False
  )
  return buffer.getvalue()


def _encode_rows(content: ShardContent, vectors: storage.StoredFile) -> bytes:
  metadata = {
    'schema_version': SCHEMA_VERSION,
    'vectors': dataclasses.asdict(vectors),
    'rejected': content.rejected,
  }
  table = content.rows.replace_schema_metadata(
    {_METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()}
  )
  buffer = io.BytesIO()
  pq.write_table(table, buffer, compression='zstd')
  return buffer.getvalue()


def _parse_rows(path: str, data: bytes) -> tuple[pa.Table, dict[str, Any]]:
  try:
    table = pq.read_table(pa.BufferReader(data))
    metadata = json.loads(table.schema.metadata[_METADATA_KEY])
  except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
    raise storage.DamagedFileError(
      f'{path} is no rows file of an index ({error})'
    ) from error
  return table, metadata


def _decode_rows(
  index: str, rows: storage.StoredFile
) -> tuple[pa.Table, dict[str, Any]]:
  path = storage.join(shards_directory(index), rows.name)
  data = storage.read_checked(
    path, num_bytes=rows.num_bytes, crc32c=rows.crc32c
  )
  return _parse_rows(path, data)


def _describe(example_range: ExampleRange, path: str, data: bytes) -> Shard:
  """The shard whose rows file has content `data`."""
  table, metadata = _parse_rows(path, data)
  _check_accounts(example_range, table.num_rows, metadata['rejected'])
  return Shard(
    range=example_range,
    rows=storage.StoredFile.of(path.rsplit('/', 1)[-1], data),
    vectors=storage.StoredFile(**metadata['vectors']),
    num_written=table.num_rows,
    num_rejected=len(metadata['rejected']),
  )


def _intact_shard(
  index: str, example_range: ExampleRange, repair: int
) -> Shard | None:
  """The shard committed under this name, None if a file of it is damaged."""
  path = storage.join(
    shards_directory(index), _rows_name(example_range, repair)
  )
  try:
    shard = _describe(example_range, path, storage.read_bytes(path))
    read_vectors(index, shard)
  except storage.DamagedFileError:
    return None
  return shard


def _check_accounts(
  example_range: ExampleRange, num_rows: int, rejected: dict[str, str]
) -> None:
  if num_rows + len(rejected) != example_range.num_examples:
    raise storage.DamagedFileError(
      f'{example_range.stem} has {num_rows} rows and {len(rejected)} rejected '
      f'examples, expected {example_range.num_examples} together'
    )


def projection_fingerprints(
  task_fingerprints: Mapping[str, str],
  basis_fingerprint: str,
  basis_dtype: str,
) -> dict[str, str]:
  """What every shard of an index depends on, whatever its source."""
  return {
    **task_fingerprints,
    'basis': basis_fingerprint,
    'basis_dtype': basis_dtype,
    'dtype': VECTOR_DTYPE.name,
  }


def range_fingerprint(source: str, projection: Mapping[str, str]) -> str:
  """Ties a shard to its source file and to `projection_fingerprints`."""
  return fingerprints.of_json(
    {'schema_version': SCHEMA_VERSION, 'source': source, **projection}
  )
