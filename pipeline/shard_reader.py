"""Shards of a published generation, read ahead in order, in bounded memory."""

import collections
from collections.abc import Iterator, Sequence
import concurrent.futures
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from influence_core import types
from pipeline import index_format, storage
from pipeline import manifest as manifest_lib

# Shards read at a time: one is enough to keep a disk busy, an object store
# answers many requests at once.
_LOCAL_READERS = 1
_REMOTE_READERS = 8
# Bytes of shards that are read or wait to be used.
_WAITING_BYTES = 128 * 2**20


class ReadShard(NamedTuple):
  """A shard, or the part of it that was asked for.

  Attributes:
    first: position of its first row in the generation.
    vectors: [num_rows, projection_dim] float32.
    rows: table of num_rows rows; empty where no column was asked for.
  """

  first: int
  vectors: np.ndarray
  rows: pa.Table


def read_shards(
  index: str,
  manifest: manifest_lib.Manifest,
  *,
  columns: Sequence[str] = (),
  numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[ReadShard]:
  """Checked shards in order.

  Args:
    index: directory of the index.
    manifest: the generation to read.
    columns: columns of the rows that are wanted; the file is not read for none.
    numbers: of the shards to read, in increasing order; None for all.
    progress: called with the examples that were handed out.

  Raises:
    storage.DamagedFileError: Names the file and what is wrong with it.
  """
  num_readers = _LOCAL_READERS if storage.is_local(index) else _REMOTE_READERS
  firsts = np.cumsum([0, *(shard.num_written for shard in manifest.shards)])
  if numbers is None:
    numbers = range(len(manifest.shards))
  shards = ((firsts[n], manifest.shards[n]) for n in numbers)
  num_done, waiting = 0, collections.deque[tuple]()
  with concurrent.futures.ThreadPoolExecutor(num_readers) as pool:
    while True:
      waiting_bytes = sum(shard.vectors.num_bytes for _, shard, _ in waiting)
      for first, shard in shards:
        content = pool.submit(_read, index, shard, columns)
        waiting.append((int(first), shard, content))
        waiting_bytes += shard.vectors.num_bytes
        if len(waiting) > num_readers or waiting_bytes > _WAITING_BYTES:
          break
      if not waiting:
        return
      first, shard, content = waiting.popleft()
      yield ReadShard(first, *content.result())
      num_done += shard.num_written
      progress(num_done, manifest.num_examples)


def _read(
  index: str, shard: index_format.Shard, columns: Sequence[str]
) -> tuple[np.ndarray, pa.Table]:
  vectors = index_format.read_vectors(index, shard)
  if not columns:
    return vectors, pa.table({})
  unique = list(dict.fromkeys(columns))
  return vectors, index_format.read_rows(index, shard, unique)
