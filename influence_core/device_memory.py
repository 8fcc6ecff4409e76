"""How much memory there is, where the basis goes, how large a batch is.

A basis is replicated on all devices where it fits, else split over them, else
streamed from the host by blocks of eigenvectors. A block costs one more
forward and backward pass over the data, so blocks are as large as fit.
"""

from collections.abc import Callable
import dataclasses
import math
import os
import pathlib
from typing import Any, Literal

import jax

from influence_core import errors

Placement = Literal['auto', 'replicated', 'sharded', 'streamed']

# Part of a device's memory to plan with; the rest is for the allocator's
# fragmentation and for programs themselves.
_USABLE_FRACTION = 0.8
# A host also holds input data and other processes.
_USABLE_HOST_FRACTION = 0.5
# Part of the memory that parameters and basis may take; the rest is for the
# temporaries of a batch.
_RESIDENT_FRACTION = 0.6

# One micro-batch reads the whole basis, so it should be large enough to make
# that cheap; more gains nothing and costs memory.
_PREFERRED_MICRO_BATCH = 128
# Below this the body of scans is evaluated twice instead of keeping values.
_SMALL_MICRO_BATCH = 16
# Gradient blocks of the micro-batch should stay in a CPU's cache; accelerators
# want large matrix products.
_CPU_BLOCK_BYTES = 4 * 2**20
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
  """

  budget_bytes: int
  parameter_bytes: int
  basis_bytes: int
  placement: Placement
  num_blocks: int
  block_bytes: int

  @property
  def workspace_bytes(self) -> int:
    """What is left for the temporaries of a batch."""
    return self.budget_bytes - self.parameter_bytes - self.basis_bytes


def default_budget_bytes() -> int:
  """Usable memory of one local device, which share the host's on CPU."""
  stats = jax.local_devices()[0].memory_stats() or {}
  if limit := stats.get('bytes_limit'):
    return int(limit * _USABLE_FRACTION)
  host = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  try:
    limit = pathlib.Path('/sys/fs/cgroup/memory.max').read_text('ascii')
    host = min(host, int(limit))
  except (OSError, ValueError):  # No limit, or no such file system.
    pass
  return int(host * _USABLE_HOST_FRACTION / jax.local_device_count())


def plan_memory(
  *,
  parameter_bytes: int,
  vector_bytes: int,
  projection_dim: int,
  budget_bytes: int | None = None,
  placement: Placement = 'auto',
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
    fits = {
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
  is_cpu = jax.default_backend() == 'cpu'
  block_bytes = _CPU_BLOCK_BYTES if is_cpu else _ACCELERATOR_BLOCK_BYTES
  return MemoryPlan(
    budget_bytes=budget,
    parameter_bytes=parameter_bytes,
    basis_bytes=math.ceil(dim * vector_bytes / slices),
    placement=placement,
    num_blocks=num_blocks,
    block_bytes=min(block_bytes, budget // 16),
  )


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled projection.

  Attributes:
    micro_batch: examples of a call on each device.
    recompute: whether the bodies of scans are evaluated again in the backward
      pass.
    compiled: the executable.
    temporary_bytes: of a call on each device.
  """

  micro_batch: int
  recompute: bool
  compiled: Any
  temporary_bytes: int


def largest_program(
  compile_program: Callable[[int, bool], Program],
  workspace_bytes: int,
  *,
  num_examples: int | None,
  has_scans: bool,
) -> Program:
  """The program with the largest useful micro-batch that fits.

  Args:
    compile_program: (micro_batch, recompute) -> program.
    workspace_bytes: what its temporaries may take.
    num_examples: examples there will ever be for each device, if known.
    has_scans: whether recomputing would save anything.

  Raises:
    errors.InputError: Not even a single example fits.
  """
  start = _PREFERRED_MICRO_BATCH
  if num_examples is not None:
    start = max(1, min(start, num_examples))
  program = _shrink_to_fit(compile_program, workspace_bytes, start, False)
  is_small = program.micro_batch < min(start, _SMALL_MICRO_BATCH)
  is_large = program.temporary_bytes > workspace_bytes
  if has_scans and (is_small or is_large):
    program = _shrink_to_fit(compile_program, workspace_bytes, start, True)
  if program.temporary_bytes > workspace_bytes:
    raise errors.InputError(
      f'one example needs {program.temporary_bytes:,} bytes of temporary '
      f'memory on each device and {workspace_bytes:,} are left beside '
      'parameters and basis; raise memory_budget, select fewer parameters, or '
      'wrap the layers of the model in jax.checkpoint'
    )
  return program


def _shrink_to_fit(
  compile_program, workspace_bytes: int, micro_batch: int, recompute: bool
) -> Program:
  """The first program that fits, or the one for a single example."""
  program = compile_program(micro_batch, recompute)
  while program.temporary_bytes > workspace_bytes and micro_batch > 1:
    # Temporaries grow with the batch, apart from a constant part.
    fitting = micro_batch * workspace_bytes / program.temporary_bytes
    micro_batch = max(1, 2 ** math.floor(math.log2(max(fitting, 1))))
    if micro_batch == program.micro_batch:
      micro_batch //= 2
    program = compile_program(micro_batch, recompute)
  return program
