"""Examples left out of an index: never silently, never too many."""

from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import errors
from pipeline.index import format as index_format
from pipeline.storage import checked_files, files as storage, parquet_bytes

# Why an example is rejected that could be read.
NOT_FINITE = 'non-finite loss or gradient'

_SCHEMA = pa.schema([('id', pa.string()), ('reason', pa.string())])


class TooManyRejectedError(errors.InputError):
  """More examples cannot be used than was allowed."""


def check_fraction(
  index: str, shards: Sequence[index_format.Shard], max_fraction: float
) -> None:
  """Refuses to publish when too many examples were rejected.

  Raises:
    TooManyRejectedError: Names the fraction and the first rejected example.
  """
  num_read = sum(shard.range.num_examples for shard in shards)
  num_rejected = sum(shard.num_rejected for shard in shards)
  if num_rejected <= max_fraction * num_read:
    return
  first = next(shard for shard in shards if shard.num_rejected)
  rejected = index_format.read_rejected(index, first)
  raise _too_many(
    f'{num_rejected} of {num_read} examples', rejected, max_fraction
  )


def check_sample_fraction(
  rejected: Mapping[str, str], num_read: int, max_fraction: float
) -> None:
  """Refuses a sample of which too many examples were rejected.

  Args:
    rejected: reason by id.
    num_read: examples of the sample, those with them.
    max_fraction: of them that may be rejected.

  Raises:
    TooManyRejectedError: Names the fraction and the first rejected example.
  """
  if len(rejected) > max_fraction * num_read:
    raise _too_many(
      f'{len(rejected)} of {num_read} sampled examples', rejected, max_fraction
    )


def _too_many(
  what: str, rejected: Mapping[str, str], max_fraction: float
) -> TooManyRejectedError:
  example_id, reason = next(iter(rejected.items()))
  return TooManyRejectedError(
    f'{what} were rejected, more than the allowed fraction {max_fraction}; the '
    f'first is {example_id} ({reason}); correct the data or raise '
    '--max_rejected_fraction'
  )


def save_list(
  index: str, shards: Sequence[index_format.Shard]
) -> checked_files.StoredFile | None:
  """Writes ids and reasons of what was left out, if anything was.

  The file is named by its content and written before the manifest that names
  it, so that a published generation always has its list.
  """
  rejected: dict[str, str] = {}
  for shard in shards:
    if shard.num_rejected:
      rejected |= index_format.read_rejected(index, shard)
  if not rejected:
    return None
  table = pa.table([list(rejected), list(rejected.values())], schema=_SCHEMA)
  buffer = pa.BufferOutputStream()
  pq.write_table(table, buffer)
  data = buffer.getvalue().to_pybytes()
  file = checked_files.StoredFile.of(
    f'rejected-{checked_files.checksum(data)}.parquet', data
  )
  storage.create_exclusive(storage.join(index, file.name), data)
  return file


def load(index: str, file: checked_files.StoredFile | None) -> pa.Table:
  """What was left out, of the list that a manifest names: `id` and `reason`.

  Raises:
    storage.DamagedFileError: It is damaged.
  """
  if file is None:
    return _SCHEMA.empty_table()
  path = storage.join(index, file.name)
  return parquet_bytes.read(path, checked_files.read_checked(path, file))


def load_ids(
  index: str, file: checked_files.StoredFile | None
) -> frozenset[str]:
  """Ids of what was left out; see `load`."""
  return frozenset(load(index, file)['id'].to_pylist())
