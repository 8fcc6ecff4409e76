"""Rows of tables that lie in pieces, in memory or mapped: only those asked for.

`pyarrow.Table.take` would copy every piece of a table of texts first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
import dataclasses
import itertools
import pathlib

import numpy as np
import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Pieces:
  """A table in pieces.

  Attributes:
    batches: the pieces.
    edges: [num_pieces + 1] int64 first row of each, and the end of the last.
  """

  batches: Sequence[pa.RecordBatch]
  edges: np.ndarray

  @classmethod
  def of(cls, batches: Iterable[pa.RecordBatch]) -> 'Pieces':
    kept = list(batches)
    return cls(kept, np.cumsum([0, *map(len, kept)]))

  def take(self, rows: np.ndarray) -> pa.Table:
    """Rows by number, in their order; see `gather`."""

    def take(number: int, places: np.ndarray) -> pa.Table:
      batch = self.batches[number].take(pa.array(places))
      return pa.Table.from_batches([batch])

    return gather(self.edges, rows, take)


def gather(
  edges: np.ndarray,
  rows: np.ndarray,
  take: Callable[[int, np.ndarray], pa.Table],
) -> pa.Table:
  """Rows by number, in their order, from the pieces that have them.

  Args:
    edges: [num_pieces + 1] int64, see `Pieces`.
    rows: [num_rows] int64, at least one.
    take: rows of a piece, by its number and their places in it.

  Raises:
    RuntimeError: There is no such row.
  """
  if rows.max() >= edges[-1]:
    raise RuntimeError(f'there is no row {rows.max()} of {edges[-1]}')
  numbers = np.searchsorted(edges, rows, side='right') - 1
  found = [
    take(int(number), rows[numbers == number] - edges[number])
    for number in np.unique(numbers)
  ]
  if len(found) == 1:
    return found[0]
  # Those found are in the order of pieces.
  places = np.argsort(np.argsort(numbers, kind='stable'))
  return pa.concat_tables(found).take(pa.array(places))


def map_file(path: str) -> Iterator[pa.RecordBatch]:
  """The pieces of a local Arrow file or stream, read where they are used.

  Raises:
    pa.ArrowInvalid: It is neither, or is damaged.
  """
  return _batches(pa.memory_map(path).read_buffer())


def is_compressed(path: str) -> bool:
  """Whether pieces of an Arrow file are in memory as soon as it is mapped.

  Raises:
    pa.ArrowInvalid: See `map_file`.
  """
  mapped = pa.memory_map(path).read_buffer()
  for batch in itertools.islice(_batches(mapped), 1):
    for buffer in itertools.chain(*(x.buffers() for x in batch.columns)):
      place = buffer.address - mapped.address if buffer and buffer.size else 0
      if not 0 <= place < mapped.size:
        return True
  return False


def _batches(mapped: pa.Buffer) -> Iterator[pa.RecordBatch]:
  try:
    try:
      file = pa.ipc.open_file(mapped)
    except pa.ArrowInvalid:
      yield from pa.ipc.open_stream(mapped)
    else:
      yield from map(file.get_batch, range(file.num_record_batches))
  except OSError as error:
    raise pa.ArrowInvalid(str(error)) from error


def write_file(target: pathlib.Path, batches: Iterable[pa.RecordBatch]) -> None:
  """Writes pieces, at least one, for `map_file`: without compression."""
  left = iter(batches)
  first = next(left)
  with pa.ipc.new_stream(str(target), first.schema) as writer:
    for batch in itertools.chain([first], left):
      writer.write_batch(batch)
