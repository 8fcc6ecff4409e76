"""A random sample read block by block, so that it may be the whole corpus."""

from collections.abc import Callable, Iterator

import numpy as np

from influence_core import types
from pipeline.index import rejected_examples
from pipeline.tasks import example_batches

# Examples of a block, at most and at least.
_MOST, _LEAST = 1024, 8
# Parameters times examples of a block: a device that holds a larger model is
# faster, so that blocks take a minute or so.
_WORK = 1 << 31


def choose_size(num_parameters: int) -> int:
  """Examples of a block: what is held at a time, and added up between looks.

  It depends on the model alone, since random numbers are drawn by block.
  """
  fitting = max(_LEAST, min(_MOST, _WORK // max(1, num_parameters)))
  return 1 << (fitting.bit_length() - 1)


class SampleBlocks:
  """Examples of this process that can be used: `factored_sample.Blocks`.

  Attributes:
    size: examples of a block.
    rejected: reason by id of those of this process that cannot be used, in the
      blocks that were read.
  """

  def __init__(
    self,
    read: Callable[[np.ndarray], Iterator[example_batches.ExampleBatch]],
    positions: np.ndarray,
    *,
    size: int,
    sample_size: int,
    max_rejected_fraction: float,
  ):
    """Reads nothing yet.

    Args:
      read: the usable examples at some positions, of the same shapes together.
      positions: of this process, in order.
      size: examples of a block.
      sample_size: examples of all processes.
      max_rejected_fraction: of these that may be unusable.
    """
    self.size = size
    self.rejected: dict[str, str] = {}
    self._read = read
    self._positions = positions
    self._sample_size = sample_size
    self._max_rejected_fraction = max_rejected_fraction

  def __len__(self) -> int:
    return -(-len(self._positions) // self.size)

  def __getitem__(self, number: int, /) -> Iterator[types.Features]:
    """Groups of the examples of a block.

    Raises:
      rejected_examples.TooManyRejectedError: More than may be are unusable.
    """
    start = number * self.size
    for batch in self._read(self._positions[start : start + self.size]):
      self.rejected |= batch.rejected
      # Those of one process may be too many before all are known.
      rejected_examples.check_sample_fraction(
        self.rejected, self._sample_size, self._max_rejected_fraction
      )
      if batch.ids:
        yield batch.features
