"""Functions of parameters and examples, spread over the devices of a process.

`Replicated`: every device has all parameters and its own examples. `Sharded`,
for models that do not fit one device: every device has a part of each parameter
and its own examples, and the compiler gathers the parameters of each layer as
it comes (as in fully sharded data parallelism).
"""

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import jax
import numpy as np

from influence_core import choices, types
from influence_core.devices import (
  multi_device,
  parameter_layout,
  program as device_program,
)


class ExampleMap(Protocol):
  """How a function (parameters, constants, examples) is spread."""

  def put_parameters(self, leaves: types.SelectedParameters) -> Any:
    """Parameters by path, on the devices to stay."""
    ...

  def put(self, constants: Any) -> Any:
    """A pytree of arrays, on every device to stay."""
    ...

  def resident_bytes(self, placed: Any) -> int:
    """Of what was put there, on each device."""
    ...

  def compile_each(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    """A function whose results have a leading axis of examples.

    Args:
      function: (*placed, examples) -> pytree of [examples, ...] arrays.
      *placed: its arguments.
      like: pytree of [any, ...] arrays of examples, for their shapes.
      micro_batch: examples of a call on each device.
    """
    ...

  def compile_sum(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    """The same of results that are sums over examples, and so without axis."""
    ...

  def batches(
    self, examples: types.Features, micro_batch: int
  ) -> Iterator[tuple[multi_device.DeviceBatch, int]]:
    """Batches of one size, and how many examples of each are no padding."""
    ...

  def examples(self, results: Any) -> Any:
    """[examples, ...] numpy arrays of `compile_each`'s results."""
    ...

  def sums(self, results: Any) -> Any:
    """Numpy arrays of `compile_sum`'s results."""
    ...


class Replicated:
  """Parameters on every device; see `ExampleMap`."""

  def put_parameters(self, leaves: types.SelectedParameters) -> Any:
    return multi_device.replicate(leaves)

  def put(self, constants: Any) -> Any:
    return multi_device.replicate(constants)

  def resident_bytes(self, placed: Any) -> int:
    devices = jax.local_device_count()
    return sum(leaf.nbytes // devices for leaf in jax.tree.leaves(placed))

  def compile_each(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    shapes = device_program.with_lead(
      like, jax.local_device_count(), micro_batch
    )
    mapped = multi_device.parallel_map(function, is_local=True)
    lowered = mapped.lower(*placed, shapes)
    return device_program.compile_lowered(lowered, micro_batch)

  def compile_sum(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    def on_all(*arguments):
      return jax.lax.psum(function(*arguments), multi_device.DEVICE_AXIS)

    return self.compile_each(
      on_all, *placed, like=like, micro_batch=micro_batch
    )

  def batches(
    self, examples: types.Features, micro_batch: int
  ) -> Iterator[tuple[multi_device.DeviceBatch, int]]:
    size = micro_batch * jax.local_device_count()
    for batch in multi_device.padded_batches(examples, size):
      yield batch, batch.num_valid

  def examples(self, results: Any) -> Any:
    return jax.tree.map(
      lambda leaf: np.asarray(leaf).reshape(-1, *leaf.shape[2:]), results
    )

  def sums(self, results: Any) -> Any:
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), results)


class Sharded:
  """A part of every parameter on each device; see `ExampleMap`."""

  def __init__(self):
    devices = jax.local_devices()
    self._everywhere = multi_device.shard_along(None, devices)
    self._split = multi_device.shard_along(0, devices)

  def put_parameters(self, leaves: types.SelectedParameters) -> Any:
    return parameter_layout.cut(leaves)

  def put(self, constants: Any) -> Any:
    return jax.device_put(constants, self._everywhere)

  def resident_bytes(self, placed: Any) -> int:
    return parameter_layout.shard_bytes(placed)

  def compile_each(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    return self._compile(function, placed, like, micro_batch, self._split)

  def compile_sum(
    self, function: Callable, *placed: Any, like: Any, micro_batch: int
  ) -> device_program.Program:
    return self._compile(function, placed, like, micro_batch, self._everywhere)

  def _compile(self, function, placed, like, micro_batch, out):
    size = micro_batch * jax.local_device_count()
    shapes = jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct(
        (size, *leaf.shape[1:]), leaf.dtype, sharding=self._split
      ),
      like,
    )
    lowered = jax.jit(function, out_shardings=out).lower(*placed, shapes)
    return device_program.compile_lowered(lowered, micro_batch)

  def batches(
    self, examples: types.Features, micro_batch: int
  ) -> Iterator[tuple[multi_device.DeviceBatch, int]]:
    size = micro_batch * jax.local_device_count()
    for batch in multi_device.padded_batches(examples, size):
      flat = jax.tree.map(
        lambda leaf: leaf.reshape(size, *leaf.shape[2:]), batch
      )
      yield jax.device_put(flat, self._split), batch.num_valid

  def examples(self, results: Any) -> Any:
    return jax.tree.map(np.asarray, results)

  def sums(self, results: Any) -> Any:
    return jax.tree.map(np.asarray, results)


def choose(placement: choices.ParameterPlacement) -> ExampleMap:
  """The map by the name of where parameters are."""
  return Sharded() if placement == 'sharded' else Replicated()
