"""Means over a sample of what is computed of each weight's gradient."""

from collections.abc import Callable, Iterator
import dataclasses
from typing import Any

import jax
import numpy as np

from influence_core import types
from influence_core.devices import multi_device
from influence_core.subspaces import factored_gradients

# (leaves by path, features, [examples] mask, constants) -> sums over examples.
Total = Callable[[Any, types.Features, jax.Array, Any], Any]


def _as_they_are(examples: types.Features, start: int) -> types.Features:
  del start
  return examples


@dataclasses.dataclass(frozen=True)
class FactoredSample:
  """Gradients whose second moment is the curvature.

  Attributes:
    gradients: of a loss.
    leaves: all parameters by path.
    examples: pytree of [num_examples, ...] arrays of this process.
    draw: (some of the examples, number of the first) -> features for that loss,
      which may be several for each example.
    batch_size: features at a time on each device.
  """

  gradients: factored_gradients.FactoredGradients
  leaves: types.SelectedParameters
  examples: types.Features
  draw: Callable[[types.Features, int], types.Features] = _as_they_are
  batch_size: int = 32

  def mean(self, total: Total, constants: Any) -> Any:
    """Mean over the examples of all processes, pytree of float64 arrays.

    Args:
      total: of a batch.
      constants: pytree of arrays for it.
    """

    def total_on_all(leaves, constants, batch):
      found = total(leaves, batch.features, batch.mask, constants)
      return jax.lax.psum(found, multi_device.DEVICE_AXIS)

    mapped = multi_device.parallel_map(total_on_all, is_local=True)
    leaves, fixed = map(multi_device.replicate, (self.leaves, constants))
    added = None
    for batch in self._batches():
      found = jax.tree.map(
        lambda x: np.asarray(x[0], np.float64), mapped(leaves, fixed, batch)
      )
      added = found if added is None else jax.tree.map(np.add, added, found)
    own = np.array(float(multi_device.num_examples(self.examples)))
    count = multi_device.sum_over_processes(own)
    return jax.tree.map(
      lambda x: multi_device.sum_over_processes(x) / count, added
    )

  def _batches(self) -> Iterator[multi_device.DeviceBatch]:
    """Features for the loss, drawn for a batch of examples at a time."""
    size = self.batch_size * jax.local_device_count()
    count = multi_device.num_examples(self.examples)
    for start in range(0, count, size):
      # What is drawn is the same, however many devices there are.
      starts = range(start, min(start + size, count), self.batch_size)
      drawn = [self._draw(x) for x in starts]
      features = jax.tree.map(lambda *leaves: np.concatenate(leaves), *drawn)
      yield from multi_device.padded_batches(features, size)

  def _draw(self, start: int) -> types.Features:
    some = slice(start, start + self.batch_size)
    return self.draw(
      jax.tree.map(lambda leaf: leaf[some], self.examples), start
    )
