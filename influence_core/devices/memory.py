"""How much memory there is, where the basis goes, how large a batch is.

A basis is replicated on all devices where it fits, else split over them, else
streamed from the host by blocks of eigenvectors. A block costs one more
forward and backward pass over the data, so blocks are as large as fit.
"""

import dataclasses
import math
import os
import pathlib

import jax

from influence_core import choices, errors

# Part of a device's memory to plan with; the rest is for the allocator's
# fragmentation and for programs themselves.
_USABLE_FRACTION = 0.8
# A host also holds input data and other processes.
_USABLE_HOST_FRACTION = 0.5
# What needs more than this part of it would be killed.
_MAX_HOST_FRACTION = 0.9
# Part of the memory that parameters and basis may take; the rest is for the
# temporaries of a batch.
_RESIDENT_FRACTION = 0.6

# Gradient blocks of the micro-batch should stay in a CPU's cache; accelerators
# want large matrix products. What is applied to the basis is used once, so
# only its allocation counts.
_CPU_BLOCK_BYTES = 4 * 2**20
_CPU_APPLY_BLOCK_BYTES = 64 * 2**20
_ACCELERATOR_BLOCK_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class MemoryPlan:
  """Where things are, in bytes on each device.

  Attributes:
    budget_bytes: what may be used.
    parameter_bytes: the model's parameters.
    basis_bytes: the part of the basis that is on a device at a time.
    placement: 'replicated', 'sharded' or 'streamed'.
    num_blocks: blocks of eigenvectors, 1 unless streamed.
    block_bytes: bytes of the largest block of gradients.
    apply_block_bytes: bytes of the largest block of layers applied to the
      basis, or of rows looked up.
  """

  budget_bytes: int
  parameter_bytes: int
  basis_bytes: int
  placement: choices.BasisPlacement
  num_blocks: int
  block_bytes: int
  apply_block_bytes: int

  @property
  def workspace_bytes(self) -> int:
    """What is left for the temporaries of a batch."""
    return self.budget_bytes - self.parameter_bytes - self.basis_bytes


def default_budget_bytes() -> int:
  """Usable memory of one local device, which share the host's on CPU."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if limit := stats.get('bytes_limit'):
    return int(limit * _USABLE_FRACTION)
  return host_budget_bytes() // jax.local_device_count()


def host_budget_bytes() -> int:
  """Usable memory of this host."""
  return int(host_bytes() * _USABLE_HOST_FRACTION)


def host_bytes() -> int:
  """Memory of this host, or of the container that this process is in."""
  host = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  try:
    limit = pathlib.Path('/sys/fs/cgroup/memory.max').read_text('ascii')
    host = min(host, int(limit))
  except (OSError, ValueError):  # No limit, or no such file system.
    pass
  return host


def check_host_memory(num_bytes: float, what: str, next_step: str) -> None:
  """Refuses what this host has no memory for, before it is allocated.

  Args:
    num_bytes: needed at the same time.
    what: they are for; the message begins with it.
    next_step: what the user can do about it.

  Raises:
    errors.InputError: Names both sizes.
  """
  limit = host_bytes() * _MAX_HOST_FRACTION
  if num_bytes > limit:
    raise errors.InputError(
      f'{what} would take {num_bytes / 1e9:,.1f} GB of memory, this machine '
      f'has {limit / 1e9:,.1f} GB for it; {next_step}'
    )


def plan_memory(
  *,
  parameter_bytes: int,
  vector_bytes: int,
  projection_dim: int,
  budget_bytes: int | None = None,
  placement: choices.BasisPlacement = 'auto',
) -> MemoryPlan:
  """Decides where the basis goes.

  Args:
    parameter_bytes: size of the model's parameters.
    vector_bytes: size of one eigenvector.
    projection_dim: number of eigenvectors.
    budget_bytes: memory of each device; None for what there is.
    placement: 'auto' for the first of replicated, sharded, streamed that fits.

  Raises:
    errors.InputError: Not even one eigenvector fits.
  """
  budget = default_budget_bytes() if budget_bytes is None else budget_bytes
  devices = jax.local_device_count()
  room = int(budget * _RESIDENT_FRACTION) - parameter_bytes
  if room < vector_bytes / devices:
    raise errors.InputError(
      f'the memory budget is {budget:,} bytes on each device, but the '
      f'parameters take {parameter_bytes:,} and one eigenvector '
      f'{vector_bytes:,}; raise memory_budget or select fewer parameters'
    )
  if placement == 'auto':
    basis_bytes = projection_dim * vector_bytes
    fits: dict[choices.BasisPlacement, bool] = {
      'replicated': basis_bytes <= room,
      'sharded': devices > 1 and basis_bytes <= room * devices,
      'streamed': True,
    }
    placement = next(name for name, fit in fits.items() if fit)
  slices = 1 if placement == 'replicated' else devices
  dim = projection_dim
  num_blocks = 1
  if placement == 'streamed':
    dim = max(1, min(dim, int(room * slices / vector_bytes)))
    num_blocks = math.ceil(projection_dim / dim)
    check_host_memory(
      projection_dim * vector_bytes,
      f'a basis of {projection_dim} vectors, kept on the host,',
      'use basis_dtype bfloat16, fewer vectors or fewer parameters',
    )
  block_bytes, apply_block_bytes = (
    (_CPU_BLOCK_BYTES, _CPU_APPLY_BLOCK_BYTES)
    if jax.default_backend() == 'cpu'
    else (_ACCELERATOR_BLOCK_BYTES, _ACCELERATOR_BLOCK_BYTES)
  )
  return MemoryPlan(
    budget_bytes=budget,
    parameter_bytes=parameter_bytes,
    basis_bytes=math.ceil(dim * vector_bytes / slices),
    placement=placement,
    num_blocks=num_blocks,
    block_bytes=min(block_bytes, budget // 16),
    apply_block_bytes=min(apply_block_bytes, budget // 16),
  )
