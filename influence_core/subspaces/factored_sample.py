"""Means over a sample of what is computed of each weight's gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from influence_core import types
from influence_core.devices import multi_device
from influence_core.subspaces import factored_gradients

# (leaves by path, features, [examples] mask, constants) -> sums over examples,
# arrays by name.
Total = Callable[[Any, types.Features, jax.Array, Any], Mapping[str, jax.Array]]


class Blocks(Protocol):
  """Examples of this process, block by block."""

  def __len__(self) -> int:
    """Number of blocks."""

  def __getitem__(self, number: int, /) -> Iterable[types.Features]:
    """Those of a block: [num_examples, ...], of the same shapes together."""


class PassState(NamedTuple):
  """A pass over a sample that was begun.

  Attributes:
    num_blocks: that were added up.
    num_examples: in them.
    sums: over these examples, float64 by name.
  """

  num_blocks: int
  num_examples: int
  sums: dict[str, np.ndarray]


class PassKeeper(Protocol):
  """Keeps passes between runs."""

  def load(self, name: str) -> PassState:
    """What was kept of a pass; nothing added up where nothing was."""

  def keep(self, name: str, state: PassState) -> None:
    """Is told of it after every block; keeps it if it is time."""


def _as_they_are(
  examples: types.Features, place: tuple[int, ...]
) -> types.Features:
  del place
  return examples


@dataclasses.dataclass(frozen=True)
class FactoredSample:
  """Gradients whose second moment is the curvature.

  Attributes:
    gradients: of a loss.
    leaves: all parameters by path.
    blocks: of the examples; each is read once in a pass.
    draw: (some of the examples, where they are) -> features for that loss,
      which may be several for each example.
    batch_size: features at a time on each device.
    keeper: of passes; None to keep none.
  """

  gradients: factored_gradients.FactoredGradients
  leaves: types.SelectedParameters
  blocks: Blocks
  draw: Callable[[types.Features, tuple[int, ...]], types.Features] = (
    _as_they_are
  )
  batch_size: int = 32
  keeper: PassKeeper | None = None

  def mean(
    self, name: str, total: Total, constants: Any
  ) -> dict[str, np.ndarray]:
    """Means over the examples of all processes, float64 arrays by name.

    Args:
      name: of the pass, by which it is kept.
      total: of a batch.
      constants: pytree of arrays for it.
    """

    def total_on_all(leaves, constants, batch):
      found = total(leaves, batch.features, batch.mask, constants)
      return jax.lax.psum(found, multi_device.DEVICE_AXIS)

    mapped = multi_device.parallel_map(total_on_all, is_local=True)
    leaves, fixed = map(multi_device.replicate, (self.leaves, constants))
    state = self.keeper.load(name) if self.keeper else PassState(0, 0, {})
    sums = dict(state.sums)
    count = state.num_examples
    for number in range(state.num_blocks, len(self.blocks)):
      for place, examples in enumerate(self.blocks[number]):
        count += multi_device.num_examples(examples)
        for batch in self._batches(examples, (number, place)):
          found = mapped(leaves, fixed, batch)
          for key, value in found.items():
            sums[key] = sums.get(key, 0) + np.asarray(value[0], np.float64)
      if self.keeper:
        self.keeper.keep(name, PassState(number + 1, count, sums))
    whole = multi_device.sum_over_processes(np.array(float(count)))
    return {
      key: multi_device.sum_over_processes(sums[key]) / whole
      for key in sorted(sums)
    }

  def _batches(
    self, examples: types.Features, place: tuple[int, ...]
  ) -> Iterator[multi_device.DeviceBatch]:
    """Features for the loss, drawn for a batch of examples at a time."""
    size = self.batch_size * jax.local_device_count()
    count = multi_device.num_examples(examples)
    for start in range(0, count, size):
      # What is drawn is the same, however many devices there are.
      starts = range(start, min(start + size, count), self.batch_size)
      drawn = [self._draw(examples, (*place, x)) for x in starts]
      features = jax.tree.map(lambda *leaves: np.concatenate(leaves), *drawn)
      yield from multi_device.padded_batches(features, size)

  def _draw(
    self, examples: types.Features, place: tuple[int, ...]
  ) -> types.Features:
    some = slice(place[-1], place[-1] + self.batch_size)
    return self.draw(jax.tree.map(lambda leaf: leaf[some], examples), place)
