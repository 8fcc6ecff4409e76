"""Reads the members of an ensemble in step: blocks of the same examples."""

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from influence_core import types
from pipeline.index import block_reader
from pipeline.index.members import Member, Searched


def read_in_step(
  index: Searched,
  columns: Sequence[Sequence[str]],
  *,
  numbers: Sequence[int] | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[tuple[block_reader.ReadBlock, ...]]:
  """Blocks of the same examples, of each member one, in order.

  Args:
    index: to read.
    columns: columns of the rows that are wanted, of each member.
    numbers: of the shards of the first member to read, in increasing order;
      None for all.
    progress: called with the examples that were handed out.

  Raises:
    storage.DamagedFileError: Names the file and what is wrong with it.
  """
  first, *others = index.members
  wanted = first.spans()
  if numbers is not None:
    wanted = wanted[list(numbers)]
  followers = [
    _Follower(member, names, wanted)
    for member, names in zip(others, columns[1:], strict=True)
  ]
  for block in first.read_blocks(columns[0], numbers, progress):
    if count := len(block.vectors):
      yield block, *(x.take(block.first, count) for x in followers)
  for follower in followers:
    follower.finish()


class _Follower:
  """Reads a member in the blocks that another one is read in."""

  def __init__(
    self, member: Member, columns: Sequence[str], wanted: np.ndarray
  ):
    """Begins to read.

    Args:
      member: to read.
      columns: of the rows.
      wanted: [n, 2] positions [start, stop) that will be taken.
    """
    starts, stops = member.spans().T[..., None]  # [num_shards, 1] each.
    is_wanted = (starts < wanted[:, 1]) & (stops > wanted[:, 0])
    numbers = np.flatnonzero(is_wanted.any(axis=1)).tolist()
    self._blocks = member.read_blocks(columns, numbers)
    self._block: block_reader.ReadBlock | None = None

  def take(self, first: int, count: int) -> block_reader.ReadBlock:
    """Rows [first, first + count), after those that were taken before."""
    parts, position = [], first
    while position < first + count:
      if self._block is None or position >= self._block.first + len(
        self._block.vectors
      ):
        self._block = next(self._blocks)
        continue
      skipped = position - self._block.first
      some = slice(skipped, skipped + first + count - position)
      vectors = self._block.vectors[some]
      rows = self._block.rows.slice(skipped, len(vectors))
      parts.append(block_reader.ReadBlock(position, vectors, rows))
      position += len(vectors)
    return block_reader.ReadBlock(
      first,
      joined([part.vectors for part in parts], axis=0),
      pa.concat_tables([part.rows for part in parts]),
    )

  def finish(self) -> None:
    """Reads to the end, where checksums are compared."""
    for _ in self._blocks:
      pass


def joined(arrays: Sequence[np.ndarray], axis: int) -> np.ndarray:
  """Arrays one after the other; a single one is not copied."""
  return arrays[0] if len(arrays) == 1 else np.concatenate(arrays, axis=axis)
