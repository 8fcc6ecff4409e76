"""Where parameters and examples are while curvature products are computed.

`Replicated`: every device has all parameters and its own examples; nothing is
exchanged but the vector before a product and the sum after it. `Sharded`, for
models that do not fit one device: every device has a part of each parameter, of
the vector and of the product, and the compiler inserts the exchanges of each
layer (as in fully sharded data parallelism).
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax import flatten_util
import jax.numpy as jnp
import numpy as np

from influence_core import types
from influence_core.devices import (
  memory as device_memory,
  multi_device,
  program as device_program,
)


def fit_devices(params: types.Params) -> types.Params:
  """The parameters on a device, or cut over local ones if too many for one.

  For a look at a few examples before any work starts.
  """
  num_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
  if num_bytes <= device_memory.default_budget_bytes():
    return jax.device_put(params)
  return cut(params)


def cut(params: types.Params) -> types.Params:
  """The parameters cut over local devices, where an axis can be."""
  devices = jax.local_devices()
  return jax.tree.map(
    lambda leaf: jax.device_put(
      leaf,
      multi_device.shard_along(_axis(np.shape(leaf), len(devices)), devices),
    ),
    params,
  )


def shard_bytes(placed: types.Params) -> int:
  """What arrays that were put on devices take on each of them."""
  return sum(
    leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(placed)
  )


class Layout(Protocol):
  """How a product is spread over the devices of all processes.

  Attributes:
    leaves: all parameters by path, on the devices.
    resident_bytes: of parameters, vector and product on each device.
  """

  leaves: Any
  resident_bytes: int

  def map(self, function: Callable, *, donate_argnums: tuple = ()) -> Any:
    """`function` of arguments in this layout, to be lowered."""
    ...

  def argument_shapes(self, sample: types.Features, microbatch: int) -> tuple:
    """Shapes of (vector, leaves, batch) for a call."""
    ...

  def batches(
    self, sample: types.Features, microbatch: int
  ) -> list[multi_device.DeviceBatch]:
    """This process's examples on the devices, cut into microbatches."""
    ...

  def gather(self, slices: jax.Array) -> tuple[Any, Any]:
    """A vector by path, and zeros to add its product to, from slices."""
    ...

  def finish(self, product: Any) -> jax.Array:
    """Slices of a product summed over all devices."""
    ...


class Replicated:
  """Parameters on every device; see `Layout`."""

  def __init__(
    self, leaves: types.SelectedParameters, selected: types.SelectedParameters
  ):
    """Puts the parameters on the devices.

    Args:
      leaves: all parameters by path.
      selected: those that vectors have entries for.
    """
    self.leaves = multi_device.replicate(leaves)
    self._shapes = {path: leaf.shape for path, leaf in selected.items()}
    self.resident_bytes = _num_bytes(leaves) + 2 * _vector_bytes(selected)
    self._gather = multi_device.parallel_map(self._gather_on_device)
    self._finish = multi_device.parallel_map(_finish_on_device)

  def map(self, function: Callable, *, donate_argnums: tuple = ()) -> Any:
    return multi_device.local_map(function, donate_argnums=donate_argnums)

  def argument_shapes(self, sample: types.Features, microbatch: int) -> tuple:
    devices = jax.local_device_count()
    vector = {
      path: jax.ShapeDtypeStruct((devices, *shape), np.float32)
      for path, shape in self._shapes.items()
    }
    batch = multi_device.DeviceBatch(
      device_program.with_lead(sample, devices, microbatch),
      jax.ShapeDtypeStruct((devices, microbatch), np.float32),
    )
    return vector, device_program.with_lead(self.leaves, devices), batch

  def batches(
    self, sample: types.Features, microbatch: int
  ) -> list[multi_device.DeviceBatch]:
    size = microbatch * jax.local_device_count()
    return [
      multi_device.place(batch)
      for batch in multi_device.padded_batches(sample, size)
    ]

  def gather(self, slices: jax.Array) -> tuple[Any, Any]:
    return multi_device.as_local(self._gather(slices))

  def finish(self, product: Any) -> jax.Array:
    return self._finish(product)

  def _gather_on_device(self, part):
    flat = jax.lax.all_gather(part, multi_device.DEVICE_AXIS, tiled=True)
    vector = _by_path(flat, self._shapes)
    return vector, jax.tree.map(jnp.zeros_like, vector)


class Sharded:
  """A part of every parameter on each device; see `Layout`.

  Each parameter is cut along its longest axis that the number of devices
  divides; one without such an axis is replicated.
  """

  def __init__(
    self, leaves: types.SelectedParameters, selected: types.SelectedParameters
  ):
    """Puts each device's part on it; arguments as for `Replicated`."""
    shardings = {
      path: multi_device.shard_along(_axis(leaf.shape, jax.device_count()))
      for path, leaf in leaves.items()
    }
    self.leaves = {
      path: multi_device.from_host(leaf, shardings[path])
      for path, leaf in leaves.items()
    }
    self._shapes = {path: leaf.shape for path, leaf in selected.items()}
    self._vector_shardings = {path: shardings[path] for path in selected}
    self.resident_bytes = shard_bytes(self.leaves) + 2 * sum(
      4 * int(np.prod(shardings[path].shard_shape(shape)))
      for path, shape in self._shapes.items()
    )
    both = (self._vector_shardings, self._vector_shardings)
    self._gather = jax.jit(self._gather_everywhere, out_shardings=both)
    self._finish = jax.jit(
      _finish_everywhere, out_shardings=multi_device.shard_along(0)
    )

  def map(self, function: Callable, *, donate_argnums: tuple = ()) -> Any:
    return jax.jit(
      function,
      out_shardings=self._vector_shardings,
      donate_argnums=donate_argnums,
    )

  def argument_shapes(self, sample: types.Features, microbatch: int) -> tuple:
    vector = {
      path: jax.ShapeDtypeStruct(
        shape, np.float32, sharding=self._vector_shardings[path]
      )
      for path, shape in self._shapes.items()
    }
    split = multi_device.shard_along(0)
    size = microbatch * jax.device_count()
    batch = multi_device.DeviceBatch(
      jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          (size, *leaf.shape[1:]), leaf.dtype, sharding=split
        ),
        sample,
      ),
      jax.ShapeDtypeStruct((size,), np.float32, sharding=split),
    )
    return vector, self.leaves, batch

  def batches(
    self, sample: types.Features, microbatch: int
  ) -> list[multi_device.DeviceBatch]:
    size = microbatch * jax.local_device_count()
    batches = list(multi_device.padded_batches(sample, size))
    # All processes must take part in as many calls.
    count = multi_device.largest_over_processes(len(batches))
    last = batches[-1]
    empty = last._replace(mask=np.zeros_like(last.mask))
    batches += [empty] * (count - len(batches))
    return [multi_device.global_examples(batch) for batch in batches]

  def gather(self, slices: jax.Array) -> tuple[Any, Any]:
    return self._gather(multi_device.as_global(slices))

  def finish(self, product: Any) -> jax.Array:
    return multi_device.as_local(self._finish(product))

  def _gather_everywhere(self, slices):
    vector = _by_path(slices.reshape(-1), self._shapes)
    return vector, jax.tree.map(jnp.zeros_like, vector)


def _by_path(flat, shapes) -> dict[str, Any]:
  """Entries of a flat vector in the shapes of the parameters."""
  vector, start = {}, 0
  for path, shape in shapes.items():
    size = int(np.prod(shape))
    vector[path] = flat[start : start + size].reshape(shape)
    start += size
  return vector


def _finish_on_device(product):
  return jax.lax.psum_scatter(
    _padded_flat(product), multi_device.DEVICE_AXIS, tiled=True
  )


def _finish_everywhere(product):
  return _padded_flat(product).reshape(jax.device_count(), -1)


def _padded_flat(product):
  """All entries, filled up to equal slices for all devices."""
  flat = flatten_util.ravel_pytree(product)[0]
  return jnp.pad(flat, (0, -len(flat) % jax.device_count()))


def _axis(shape: tuple[int, ...], num_devices: int) -> int | None:
  """The longest axis that can be cut evenly, if any."""
  axes = [
    axis for axis, size in enumerate(shape) if size and size % num_devices == 0
  ]
  return max(axes, key=lambda axis: shape[axis], default=None)


def _num_bytes(leaves: types.SelectedParameters) -> int:
  return sum(leaf.nbytes for leaf in leaves.values())


def _vector_bytes(selected: types.SelectedParameters) -> int:
  return sum(4 * int(np.prod(leaf.shape)) for leaf in selected.values())
