"""Data parallelism over devices; the only file that calls pmap.

Arrays that are the same everywhere (parameters, basis) are stacked once per
device and stay there; arrays with examples are split along a leading device
dimension. A batch is always padded to one fixed size, so that a run compiles
each function once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental import multihost_utils
import numpy as np

from influence_core import types

DEVICE_AXIS = 'devices'


def replicate(tree: Any) -> Any:
  """`tree` with a leading dimension of one copy per local device.

  Copying once matters: passing a single-device array to pmap with
  `in_axes=None` copies it to every device at every call.
  """
  copies = jax.local_device_count()

  def stack(leaf):
    leaf = np.asarray(leaf)
    return np.broadcast_to(leaf[None], (copies, *leaf.shape))

  return place(jax.tree.map(stack, tree))


def place(tree: Any) -> Any:
  """Puts leaves [devices, ...] on the devices, one slice on each, to stay."""
  return jax.device_put(tree, _local_sharding())


def as_local(tree: Any) -> Any:
  """Results of a function on the devices of all processes, for a local one.

  The same buffers, [local devices, ...], nothing is copied.
  """
  if jax.process_count() == 1:
    return tree

  def view(array):
    shards = [shard.data for shard in array.addressable_shards]
    shape = (len(shards), *array.shape[1:])
    return jax.make_array_from_single_device_arrays(
      shape, _local_sharding(), shards
    )

  return jax.tree.map(view, tree)


def _local_sharding() -> jax.NamedSharding:
  return shard_along(0, jax.local_devices())


def parallel_map(
  function: Callable, *, donate_argnums: tuple = (), is_local: bool = False
) -> Any:
  """`function` run on every device, with `DEVICE_AXIS` for reductions.

  With several processes, on the devices of all of them; each gives and gets
  what belongs to its local devices. `is_local` leaves the others out, so that
  processes need not keep step.
  """
  if is_local and jax.process_count() > 1:
    return local_map(function, donate_argnums=donate_argnums)
  return jax.pmap(
    function, axis_name=DEVICE_AXIS, donate_argnums=donate_argnums
  )


def local_map(function: Callable, *, donate_argnums: tuple = ()) -> Any:
  """`function` run on every local device, with `DEVICE_AXIS` for those.

  What `pmap` does, but it can also be compiled in advance by one process of
  several.
  """

  def on_slices(*slices):
    results = function(*jax.tree.map(lambda leaf: leaf[0], slices))
    return jax.tree.map(lambda leaf: leaf[None], results)

  sharding = _local_sharding()
  mapped = jax.shard_map(
    on_slices,
    mesh=sharding.mesh,
    in_specs=sharding.spec,
    out_specs=sharding.spec,
    check_vma=False,  # Which asks constants to be marked as differing too.
  )
  return jax.jit(
    mapped,
    in_shardings=sharding,
    out_shardings=sharding,
    donate_argnums=donate_argnums,
  )


def devices_by_process() -> list[jax.Device]:
  """The devices of all processes in the order of `pmap`: process by process.

  `jax.devices()` follows the topology, which may go back and forth.
  """
  return [
    device
    for process in range(jax.process_count())
    for device in jax.local_devices(process_index=process)
  ]


def shard_along(
  axis: int | None, devices: Sequence[jax.Device] | None = None
) -> jax.NamedSharding:
  """Cuts an array evenly along an axis.

  Args:
    axis: the axis; None for a copy on every device.
    devices: to cut it over; None for those of all processes.
  """
  mesh = jax.sharding.Mesh(devices or devices_by_process(), (DEVICE_AXIS,))
  names = () if axis is None else (*[None] * axis, DEVICE_AXIS)
  return jax.NamedSharding(mesh, jax.sharding.PartitionSpec(*names))


def from_host(array: types.Array, sharding: jax.NamedSharding) -> jax.Array:
  """An array that every process has, of which devices get their parts."""
  array = np.asarray(array)
  return jax.make_array_from_callback(
    array.shape, sharding, lambda index: array[index]
  )


def as_global(local: jax.Array) -> jax.Array:
  """Local slices [local devices, ...] as those of all, [devices, ...].

  The same buffers, nothing is copied: the inverse of `as_local`.
  """
  shards = [shard.data for shard in local.addressable_shards]
  return jax.make_array_from_single_device_arrays(
    (jax.device_count(), *local.shape[1:]), shard_along(0), shards
  )


def global_examples(batch: 'DeviceBatch') -> 'DeviceBatch':
  """Batches of all processes as one, [examples, ...], cut over all devices."""

  def joined(leaf):
    flat = leaf.reshape(-1, *leaf.shape[2:])
    return jax.make_array_from_process_local_data(shard_along(0), flat)

  return jax.tree.map(joined, batch)


def sum_over_processes(array: np.ndarray) -> np.ndarray:
  """Sum of a host array over all processes, the same in each."""
  if jax.process_count() == 1:
    return array
  # As integers, since JAX would round float64 to float32.
  bits = np.ascontiguousarray(array).reshape(-1).view(np.uint32)
  parts = np.asarray(multihost_utils.process_allgather(bits))
  return parts.view(array.dtype).sum(axis=0).reshape(array.shape)


def gather_bytes(data: bytes) -> list[bytes]:
  """What every process gives, in their order; all must call it."""
  if jax.process_count() == 1:
    return [data]
  size = largest_over_processes(len(data))
  padded = np.zeros(size, np.uint8)
  padded[: len(data)] = np.frombuffer(data, np.uint8)
  parts = np.asarray(multihost_utils.process_allgather(padded))
  sizes = np.asarray(multihost_utils.process_allgather(np.array(len(data))))
  return [
    part.tobytes()[:count] for part, count in zip(parts, sizes, strict=True)
  ]


def any_process(value: bool) -> bool:
  """Whether it is true in any process."""
  return bool(sum_over_processes(np.array(float(value))) > 0)


def smallest_over_processes(number: int) -> int:
  """The smallest of the numbers that the processes have."""
  if jax.process_count() == 1:
    return number
  return int(np.min(multihost_utils.process_allgather(np.array(number))))


def largest_over_processes(number: int) -> int:
  """The largest of the numbers that the processes have."""
  return -smallest_over_processes(-number)


def first_device() -> int:
  """Place of this process's first device among those of all processes."""
  return jax.process_index() * jax.local_device_count()


def num_examples(features: types.Features) -> int:
  """The leading dimension shared by all leaves of `features`."""
  return len(jax.tree.leaves(features)[0])


class DeviceBatch(NamedTuple):
  """A batch of fixed size, split over the devices.

  Attributes:
    features: pytree of [devices, batch_size / devices, ...] arrays.
    mask: [devices, batch_size / devices] float32, 1 for real examples and 0
      for the padding, which always comes last.
  """

  features: types.Features
  mask: Any

  @property
  def num_valid(self) -> int:
    return int(self.mask.sum())


def filled(features: types.Features, start: int, size: int) -> types.Features:
  """[size, ...] of the examples from `start` on, the last one over and over.

  Real values instead of zeros, since a loss may be undefined at zero and NaN
  survives a mask.

  Args:
    features: pytree of [num_examples, ...] arrays, start < num_examples.
    start: the first.
    size: as many.
  """
  last = num_examples(features) - 1
  rows = np.minimum(np.arange(start, start + size), last)
  return jax.tree.map(lambda leaf: np.asarray(leaf)[rows], features)


def padded_batches(
  features: types.Features, batch_size: int
) -> Iterator[DeviceBatch]:
  """Cuts [num_examples, ...] features into batches of one fixed size.

  The last batch is `filled`.

  Args:
    features: pytree of [num_examples, ...] arrays, num_examples >= 1.
    batch_size: examples of a batch over all devices; a multiple of their
      number.

  Yields:
    The batches in order.
  """
  total = num_examples(features)
  devices = jax.local_device_count()
  for start in range(0, total, batch_size):
    is_own = np.arange(start, start + batch_size) < total
    mask = is_own.astype(np.float32).reshape(devices, -1)
    batch = jax.tree.map(
      lambda leaf: leaf.reshape(
        devices, batch_size // devices, *leaf.shape[1:]
      ),
      filled(features, start, batch_size),
    )
    yield DeviceBatch(batch, mask)
