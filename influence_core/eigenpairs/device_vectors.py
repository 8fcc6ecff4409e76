"""The vectors of a Krylov basis, kept on the devices that compute with them.

Each device has its slice of every vector, cut into blocks of columns, and the
same steps as on the host run block by block; see `krylov_vectors`.
"""

import functools

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from influence_core.devices import multi_device
from influence_core.eigenpairs import gram_schmidt

# Coefficients are orthogonal to rounding only where products are not shortened.
_PRECISION = lax.Precision.HIGHEST


class DeviceVectors:
  """A `krylov_vectors.KrylovVectors` in device memory."""

  def __init__(
    self,
    capacity: int,
    slice_size: int,
    dtype: np.dtype,
    *,
    block_columns: int = 1 << 20,
  ):
    """Reserves the memory.

    Args:
      capacity: most vectors there will ever be.
      slice_size: entries of a vector on each device.
      dtype: that vectors are stored in, float32 or bfloat16.
      block_columns: columns of a block.
    """
    self._count = 0
    self._slice_size = slice_size
    self._block_columns = min(block_columns, slice_size)
    num_blocks = -(-slice_size // self._block_columns)
    shape = (num_blocks, capacity, self._block_columns)
    devices = jax.local_device_count()
    self._blocks = multi_device.parallel_map(lambda _: jnp.zeros(shape, dtype))(
      np.zeros(devices)
    )

  @property
  def num_columns(self) -> int:
    return self._slice_size * jax.local_device_count()

  def __len__(self) -> int:
    return self._count

  def append(self, vector: jax.Array, norm: float) -> float:
    self._blocks, error = _append(
      self._blocks, vector, _everywhere(self._count), _everywhere(norm)
    )
    self._count += 1
    return float(_on_host(error))

  def vector(self, number: int) -> jax.Array:
    size = self._slice_size
    return _vector_function(size)(self._blocks, _everywhere(number))

  def overlaps(self, vector: jax.Array) -> np.ndarray:
    return _on_host(_overlaps(self._blocks, vector))[: self._count]

  def orthogonalise(
    self, vector: jax.Array, expected: np.ndarray
  ) -> tuple[jax.Array, np.ndarray, float]:
    known = expected
    if len(self):
      last = _overlap_with_one(self._blocks, vector, _everywhere(len(self) - 1))
      known = np.append(expected, _on_host(last))
    return gram_schmidt.orthogonalise(self._take_out, vector, known)

  def _take_out(
    self, vector: jax.Array, known: np.ndarray
  ) -> gram_schmidt.Pass:
    filled = _everywhere(self._filled(known[None])[0])
    residual, missed, *squared = _take_out(self._blocks, vector, filled)
    before, after = (float(_on_host(value)) for value in squared)
    missed = _on_host(missed)[: self._count]
    return gram_schmidt.Pass(residual, missed, before, after)

  def combine(
    self, coefficients: np.ndarray, start: int, stop: int
  ) -> np.ndarray:
    # On the one device that has the columns: other processes do not take part.
    filled = self._filled(coefficients)
    combined = np.empty((len(coefficients), stop - start), np.float32)
    size, width = self._slice_size, self._block_columns
    position = start
    while position < stop:
      device, column = divmod(position, size)
      number, offset = divmod(column, width)
      count = min(width - offset, size - column, stop - position)
      own = self._blocks.addressable_data(device)
      part = np.asarray(_combine_block(own, filled, number))
      target = slice(position - start, position - start + count)
      combined[:, target] = part[:, offset : offset + count]
      position += count
    return combined

  def restart(self, coefficients: np.ndarray) -> None:
    filled = _everywhere(self._filled(coefficients))
    last = _everywhere(self._count - 1)
    self._blocks = _restart(self._blocks, filled, last)
    self._count = len(coefficients) + 1

  def gram(self, other: 'DeviceVectors') -> np.ndarray:
    gram = _on_host(_gram(self._blocks, other._blocks))
    return gram[: len(self), : len(other)]

  def _filled(self, coefficients: np.ndarray) -> np.ndarray:
    """Coefficients with zeros for vectors that are not there yet."""
    missing = self._blocks.shape[2] - coefficients.shape[1]
    return np.pad(coefficients, ((0, 0), (0, missing))).astype(np.float32)


def _everywhere(value) -> jax.Array:
  return multi_device.replicate(np.asarray(value))


def _on_host(replicated: jax.Array) -> np.ndarray:
  """What every device has the same, float64."""
  return np.asarray(replicated.addressable_data(0)[0], np.float64)


def _in_blocks(vector, blocks):
  """[slice] as [blocks, columns], filled up with zeros."""
  num_blocks, _, width = blocks.shape
  missing = num_blocks * width - len(vector)
  return jnp.pad(vector, (0, missing)).reshape(num_blocks, width)


def _matmul(a, b):
  return jnp.matmul(a, b, precision=_PRECISION)


def _inner_products(block, part):
  """[rows] inner products of each row with `part`.

  As a reduction, not a matrix product: XLA's matrix-vector kernels on CPU add
  up a row one entry after the other, so that a long tail of small entries is
  lost against a large head, and orthogonality with it (5e-5, not 2e-7).
  """
  return jnp.sum(block * part, axis=1)


def _sum_over_devices(value):
  return lax.psum(value, multi_device.DEVICE_AXIS)


def _append_on_device(blocks, vector, number, norm):
  scaled = _in_blocks(vector, blocks) / norm
  stored = scaled.astype(blocks.dtype)
  lost = jnp.sum(jnp.square(scaled - stored.astype(jnp.float32)))
  blocks = lax.dynamic_update_slice(blocks, stored[:, None], (0, number, 0))
  return blocks, jnp.sqrt(_sum_over_devices(lost))


def _overlaps_on_device(blocks, vector):
  def add_block(total, pair):
    block, part = pair
    return total + _inner_products(block.astype(jnp.float32), part), None

  zero = jnp.zeros(blocks.shape[1])
  pairs = (blocks, _in_blocks(vector, blocks))
  return _sum_over_devices(lax.scan(add_block, zero, pairs)[0])


def _overlap_with_one_on_device(blocks, vector, number):
  rows = lax.dynamic_index_in_dim(blocks, number, 1, keepdims=False)
  parts = rows.astype(jnp.float32) * _in_blocks(vector, blocks)
  return _sum_over_devices(jnp.sum(jnp.sum(parts, axis=1)))


def _take_out_on_device(blocks, vector, known):
  """A pass of `gram_schmidt`: residual, missed, before, after."""

  def known_part(totals, pair):
    block, part = pair
    block = block.astype(jnp.float32)
    part = part - _matmul(known, block)
    missed, before = totals
    missed += _inner_products(block, part)
    return (missed, before + jnp.sum(part * part)), part

  def missed_part(after, pair):
    block, part = pair
    part = part - _matmul(missed, block.astype(jnp.float32))
    return after + jnp.sum(part * part), part

  zeros = (jnp.zeros(blocks.shape[1]), jnp.zeros(()))
  pairs = (blocks, _in_blocks(vector, blocks))
  totals, parts = lax.scan(known_part, zeros, pairs)
  missed, before = _sum_over_devices(totals)
  after, parts = lax.scan(missed_part, jnp.zeros(()), (blocks, parts))
  residual = parts.reshape(-1)[: len(vector)]
  return residual, missed, before, _sum_over_devices(after)


@jax.jit
def _combine_block(blocks, coefficients, number):
  """[combinations, columns] of a block of one device, [1, blocks, ...]."""
  return _matmul(coefficients, blocks[0, number].astype(jnp.float32))


def _restart_on_device(blocks, coefficients, last):
  """In place, block by block."""
  count = len(coefficients)

  def exchange(number, blocks):
    block = blocks[number]
    combined = _matmul(coefficients, block.astype(jnp.float32))
    kept = jnp.zeros_like(block).at[:count].set(combined.astype(block.dtype))
    kept = kept.at[count].set(block[last])
    return lax.dynamic_update_index_in_dim(blocks, kept, number, 0)

  return lax.fori_loop(0, blocks.shape[0], exchange, blocks)


def _gram_on_device(blocks, others):
  def add_block(total, pair):
    one, other = (block.astype(jnp.float32) for block in pair)
    return total + _matmul(one, other.T), None

  zero = jnp.zeros((blocks.shape[1], others.shape[1]))
  return _sum_over_devices(lax.scan(add_block, zero, (blocks, others))[0])


@functools.cache
def _vector_function(slice_size: int):
  def vector(blocks, number):
    row = lax.dynamic_index_in_dim(blocks, number, 1, keepdims=False)
    return row.reshape(-1)[:slice_size].astype(jnp.float32)

  return multi_device.parallel_map(vector)


_append = multi_device.parallel_map(_append_on_device, donate_argnums=(0,))
_overlaps = multi_device.parallel_map(_overlaps_on_device)
_overlap_with_one = multi_device.parallel_map(_overlap_with_one_on_device)
_take_out = multi_device.parallel_map(_take_out_on_device)
_restart = multi_device.parallel_map(_restart_on_device, donate_argnums=(0,))
_gram = multi_device.parallel_map(_gram_on_device)
