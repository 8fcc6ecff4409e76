"""A random sample read block by block, so that it may be the whole corpus."""

from collections.abc import Callable, Iterator

import numpy as np

from influence_core import types
from pipeline.index import rejected_examples
from pipeline.tasks import example_batches

# Examples of a block: what is held at a time, and added up between looks at the
# clock.
_BLOCK_SIZE = 1024


class SampleBlocks:
  """Examples of this process that can be used: `factored_sample.Blocks`.

  Attributes:
    rejected: reason by id of those of this process that cannot be used, in the
      blocks that were read.
  """

  def __init__(
    self,
    read: Callable[[np.ndarray], Iterator[example_batches.ExampleBatch]],
    positions: np.ndarray,
    *,
    sample_size: int,
    max_rejected_fraction: float,
  ):
    """Reads nothing yet.

    Args:
      read: the usable examples at some positions, of the same shapes together.
      positions: of this process, in order.
      sample_size: examples of all processes.
      max_rejected_fraction: of these that may be unusable.
    """
    self.rejected: dict[str, str] = {}
    self._read = read
    self._positions = positions
    self._sample_size = sample_size
    self._max_rejected_fraction = max_rejected_fraction

  def __len__(self) -> int:
    return -(-len(self._positions) // _BLOCK_SIZE)

  def __getitem__(self, number: int, /) -> Iterator[types.Features]:
    """Groups of the examples of a block.

    Raises:
      rejected_examples.TooManyRejectedError: More than may be are unusable.
    """
    start = number * _BLOCK_SIZE
    for batch in self._read(self._positions[start : start + _BLOCK_SIZE]):
      self.rejected |= batch.rejected
      # Those of one process may be too many before all are known.
      rejected_examples.check_sample_fraction(
        self.rejected, self._sample_size, self._max_rejected_fraction
      )
      if batch.ids:
        yield batch.features
