"""Rows of tables that lie in pieces, in memory or mapped: only those asked for.

`pyarrow.Table.take` copies every piece of a table of texts first, and lacks
some types.
"""

import bisect
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
import pathlib
from typing import NamedTuple

import pyarrow as pa


@dataclasses.dataclass(frozen=True)
class Pieces:
  """A table in pieces.

  Attributes:
    batches: the pieces.
    edges: first row of each, and the end of the last.
  """

  batches: Sequence[pa.RecordBatch]
  edges: Sequence[int]

  @classmethod
  def of(cls, batches: Iterable[pa.RecordBatch]) -> 'Pieces':
    kept = list(batches)
    return cls(kept, edges_of(map(len, kept)))

  def slices(self, rows: Iterable[int]) -> Iterator[pa.RecordBatch]:
    """Rows by number, in their order, without copying any.

    Raises:
      RuntimeError: There is no such row.
    """
    for run in runs(self.edges, rows):
      yield self.batches[run.piece].slice(run.start, run.length)


def edges_of(sizes: Iterable[int]) -> Sequence[int]:
  """First row of each piece of so many rows, and the end of the last."""
  return list(itertools.accumulate(sizes, initial=0))


class Run(NamedTuple):
  """Rows of one piece that follow each other."""

  piece: int
  start: int
  length: int


def runs(edges: Sequence[int], rows: Iterable[int]) -> Iterator[Run]:
  """Rows by number, in their order, from the pieces that have them.

  Args:
    edges: first row of each piece, and the end of the last.
    rows: at least one.

  Raises:
    RuntimeError: There is no such row.
  """
  first, *others = rows
  run = _find(edges, first)
  for row in others:
    stop = edges[run.piece] + run.start + run.length
    if row == stop < edges[run.piece + 1]:
      run = run._replace(length=run.length + 1)
    else:
      yield run
      run = _find(edges, row)
  yield run


def _find(edges: Sequence[int], row: int) -> Run:
  if row >= edges[-1]:
    raise RuntimeError(f'there is no row {row} of {edges[-1]}')
  piece = bisect.bisect_right(edges, row) - 1
  return Run(piece, row - edges[piece], 1)


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
