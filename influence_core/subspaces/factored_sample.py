"""Means over a sample of what is computed of each weight's gradient."""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from influence_core import choices, types
from influence_core.devices import (
  example_maps,
  memory as device_memory,
  multi_device,
  program as device_program,
)
from influence_core.subspaces import factored_gradients

# (leaves by path, features, [examples] mask, constants) -> sums over examples,
# arrays by name.
Total = Callable[[Any, types.Features, jax.Array, Any], Mapping[str, jax.Array]]
# Features at a time on each device; more gain nothing.
_PREFERRED_MICRO_BATCH = 64
# Examples that random numbers are drawn for.
_DRAWN_TOGETHER = 256


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
    memory_budget_bytes: memory to use on each device; None for most of it.
    keeper: of passes; None to keep none.
    parameter_placement: see `example_maps`.
  """

  gradients: factored_gradients.FactoredGradients
  leaves: types.SelectedParameters
  blocks: Blocks
  draw: Callable[[types.Features, tuple[int, ...]], types.Features] = (
    _as_they_are
  )
  memory_budget_bytes: int | None = None
  keeper: PassKeeper | None = None
  parameter_placement: choices.ParameterPlacement = 'replicated'

  def mean(
    self, name: str, total: Total, constants: Any
  ) -> dict[str, np.ndarray]:
    """Means over the examples of all processes, float64 arrays by name.

    Args:
      name: of the pass, by which it is kept.
      total: of a batch.
      constants: pytree of arrays for it.
    """
    spread = example_maps.choose(self.parameter_placement)
    placed = spread.put_parameters(self.leaves), spread.put(constants)
    programs = device_program.ByShape(
      functools.partial(self._choose, spread, total, placed)
    )
    state = self.keeper.load(name) if self.keeper else PassState(0, 0, {})
    sums = dict(state.sums)
    count = state.num_examples
    for number in range(state.num_blocks, len(self.blocks)):
      for place, examples in enumerate(self.blocks[number]):
        count += multi_device.num_examples(examples)
        for program, batch in self._batches(
          spread, programs, examples, (number, place)
        ):
          found = spread.sums(program.compiled(*placed, batch))
          for key, value in found.items():
            sums[key] = sums.get(key, 0) + np.asarray(value, np.float64)
      if self.keeper:
        self.keeper.keep(name, PassState(number + 1, count, sums))
    whole = multi_device.sum_over_processes(np.array(float(count)))
    return {
      key: multi_device.sum_over_processes(sums[key]) / whole
      for key in sorted(sums)
    }

  def _choose(
    self,
    spread: example_maps.ExampleMap,
    total: Total,
    placed: tuple[Any, Any],
    features: types.Features,
  ) -> device_program.Program:
    """The program for features of these shapes."""

    def of_batch(leaves, constants, batch):
      return total(leaves, batch.features, batch.mask, constants)

    def compile_program(micro_batch: int) -> device_program.Program:
      mask = jax.ShapeDtypeStruct((1,), np.float32)
      like = multi_device.DeviceBatch(features, mask)
      return spread.compile_sum(
        of_batch, *placed, like=like, micro_batch=micro_batch
      )

    resident = spread.resident_bytes(placed)
    budget = self.memory_budget_bytes or device_memory.default_budget_bytes()
    return device_program.choose_program(
      compile_program,
      budget - resident,
      batch_size=None,
      preferred=_PREFERRED_MICRO_BATCH,
      num_examples=multi_device.num_examples(features),
      useful_bytes=device_program.useful_bytes(resident),
    )

  def _batches(
    self,
    spread: example_maps.ExampleMap,
    programs: device_program.ByShape[device_program.Program],
    examples: types.Features,
    place: tuple[int, ...],
  ) -> Iterator[tuple[device_program.Program, multi_device.DeviceBatch]]:
    """Features for the loss, drawn for a few examples at a time.

    What is drawn is the same, whatever the batches of programs and devices.
    """
    for start in range(0, multi_device.num_examples(examples), _DRAWN_TOGETHER):
      some = slice(start, start + _DRAWN_TOGETHER)
      drawn = self.draw(
        jax.tree.map(lambda leaf: leaf[some], examples),  # noqa: B023
        (*place, start),
      )
      program = programs(drawn)
      for batch, _ in spread.batches(drawn, program.micro_batch):
        yield program, batch
