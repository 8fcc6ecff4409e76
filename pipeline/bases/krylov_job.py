"""Arnoldi iterations that survive being killed: where vectors go, and resuming.

Vectors live on the devices, in host memory or in files, whichever is the first
that they fit; a durable copy is written after every step in any case, and
continued from.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

import jax
import numpy as np

from influence_core import choices, errors, parameter_selection, types
from influence_core.curvature import operator as curvature_operator
from influence_core.devices import memory as device_memory, multi_device
from influence_core.eigenpairs import arnoldi, device_vectors, krylov_vectors
from pipeline.bases import curvature_sample, krylov_files
from pipeline.bases.fit_basis_config import Resources
from pipeline.storage import files as storage
from pipeline.tasks import loaded_task


@dataclasses.dataclass(frozen=True)
class Iteration:
  """What iteration to run.

  Attributes:
    curvature: which operator.
    dtype: of the stored vectors.
    seed: of the initial vector.
    max_vectors: Krylov vectors there are at a time.
    is_done: when it ends.
    restart_policy: bounds the vectors; None keeps all.
    identity: all that the vectors depend on; checked before it is continued.
  """

  curvature: choices.Curvature
  dtype: np.dtype
  seed: int
  max_vectors: int
  is_done: Callable[[arnoldi.ArnoldiState], bool]
  restart_policy: arnoldi.RestartPolicy | None
  identity: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class KrylovRun:
  """A finished iteration.

  Attributes:
    operator: what was iterated; None when its memory was given back.
    vectors: the Krylov vectors.
    state: the last one.
    files: the durable copy.
  """

  operator: curvature_operator.CurvatureOperator | None
  vectors: krylov_vectors.KrylovVectors
  state: arnoldi.ArnoldiState
  files: krylov_files.KrylovFiles


def run_iteration(
  loaded: loaded_task.LoadedTask,
  sample: types.Features,
  iteration: Iteration,
  resources: Resources,
  *,
  directory: str,
  announce: Callable[[str], None],
  on_step: Callable[[arnoldi.ArnoldiState], None],
) -> KrylovRun:
  """Runs an iteration, or what is left of it.

  Args:
    loaded: the task.
    sample: this process's examples that the operator is averaged over.
    iteration: what to run.
    resources: what it may use.
    directory: where it is made durable, in a directory for each process.
    announce: called with what was decided, before it is done.
    on_step: called after each step.

  Raises:
    errors.InputError: Memory or disk do not suffice, or another iteration is
      kept in `directory`.
  """
  operator = curvature_sample.make_operator(
    loaded,
    sample,
    curvature_operator.CurvatureOptions(
      curvature=iteration.curvature,
      microbatch_size=resources.microbatch_size,
      memory_budget_bytes=resources.memory_budget_bytes,
      reserved_bytes=_reserved_bytes(loaded, iteration, resources),
      parameter_placement=resources.parameter_placement,
    ),
  )
  columns = operator.slice_size * jax.local_device_count()
  num_bytes = iteration.max_vectors * columns * iteration.dtype.itemsize
  placement = _placement(operator, num_bytes, resources, directory)
  files = krylov_files.KrylovFiles(
    storage.join(directory, f'process-{jax.process_index():03d}'),
    columns,
    iteration.dtype,
  )
  _check_disk(files, iteration, num_bytes)
  announce(
    f'{iteration.curvature} products, {operator.mode}, by '
    f'{operator.microbatch_size} examples, intermediate values kept for '
    f'{operator.num_kept} of {operator.num_microbatches} calls; parameters '
    f'{resources.parameter_placement}; up to {iteration.max_vectors} '
    f'Krylov vectors of {operator.num_parameters:,} {iteration.dtype.name}, '
    f'{num_bytes / 1e9:.2f} GB, on {placement}; as much disk at {directory}'
  )
  files.claim(
    {
      **iteration.identity,
      'columns': columns,
      'num_processes': jax.process_count(),
    }
  )
  if placement == 'disk':
    vectors: krylov_vectors.KrylovVectors = krylov_vectors.HostVectors(files)
  else:
    vectors = _make_vectors(placement, iteration, operator, columns)
  state = _resume(files, vectors, placement, announce)
  if state is None:
    initial = operator.random_vector([iteration.seed])
    state = arnoldi.start(vectors, initial)
    del initial
    _keep(files, vectors, placement, state)

  def keep_and_tell(state):
    _keep(files, vectors, placement, state)
    on_step(state)

  state = arnoldi.iterate(
    operator,
    vectors,
    state,
    num_parameters=operator.num_parameters,
    is_done=iteration.is_done,
    restart_policy=iteration.restart_policy,
    on_step=keep_and_tell,
  )
  return KrylovRun(operator, vectors, state, files)


def _keep(files, vectors, placement: str, state: arnoldi.ArnoldiState) -> None:
  if placement != 'disk':
    files.mirror(vectors, state)
  files.save_state(state)


def _resume(
  files, vectors, placement: str, announce
) -> arnoldi.ArnoldiState | None:
  """The last state that all processes have, with its vectors in place."""
  newest = multi_device.smallest_over_processes(files.newest())
  if newest < 0:
    return None
  state = files.load_state(newest)
  announce(f'continuing after {newest} products kept at {files.directory}')
  if placement == 'disk':
    files.verify()
    return state
  for number in range(len(files)):
    row = files.row(number).astype(np.float32)
    slices = row.reshape(jax.local_device_count(), -1)
    vectors.append(multi_device.place(slices), 1.0)
  return state


def _make_vectors(placement, iteration, operator, columns):
  if placement == 'device':
    return device_vectors.DeviceVectors(
      iteration.max_vectors, operator.slice_size, iteration.dtype
    )
  return krylov_vectors.HostVectors(
    krylov_vectors.MemoryRows(iteration.max_vectors, columns, iteration.dtype)
  )


def _reserved_bytes(
  loaded: loaded_task.LoadedTask, iteration: Iteration, resources: Resources
) -> int:
  """Memory of each device that vectors will take if they fit."""
  is_cpu = jax.default_backend() == 'cpu'
  if resources.placement == 'disk' or (
    resources.placement == 'host' and not is_cpu
  ):
    return 0
  size = parameter_selection.num_parameters(loaded.selected)
  slice_size = -(-size // jax.device_count())
  return iteration.max_vectors * slice_size * iteration.dtype.itemsize


def _placement(
  operator,
  num_bytes: int,
  resources: Resources,
  directory: str,
) -> str:
  """The first place that `num_bytes` of this process's vectors fit."""
  devices = jax.local_device_count()
  left = operator.unused_bytes
  is_cpu = jax.default_backend() == 'cpu'
  fits_devices = num_bytes <= left * devices
  host = left * devices if is_cpu else device_memory.host_budget_bytes()
  if resources.placement != 'auto':
    chosen = resources.placement
  elif fits_devices and not is_cpu:
    chosen = 'device'
  else:
    chosen = 'host' if num_bytes <= host else 'disk'
  if chosen == 'host':
    device_memory.check_host_memory(
      num_bytes,
      'Krylov vectors',
      'pass --krylov_placement disk, --krylov_dtype bfloat16, --max_vectors or '
      'fewer iterations',
    )
  if chosen == 'device' and not fits_devices:
    raise errors.InputError(
      f'Krylov vectors take {num_bytes:,} bytes, but {left * devices:,} are '
      'left on the devices; pass --krylov_placement host or disk, '
      '--krylov_dtype bfloat16 or --max_vectors'
    )
  if chosen == 'disk' and not storage.is_local(directory):
    raise errors.InputError(
      f'{num_bytes:,} bytes of Krylov vectors do not fit in memory and '
      f'{directory} is on no local disk; pass --work_dir on one'
    )
  return chosen


def _check_disk(files, iteration: Iteration, num_bytes: int) -> None:
  free = storage.free_bytes(files.directory)
  there = sum(storage.sizes(files.directory).values())
  # A restart writes new vectors beside the old ones.
  needed = num_bytes * (2 if iteration.restart_policy else 1) - there
  if free is not None and needed > free:
    raise errors.InputError(
      f'{needed:,} bytes of disk are needed at {files.directory} and '
      f'{free:,} are free; choose another --work_dir, fewer iterations, '
      '--max_vectors or --krylov_dtype bfloat16'
    )
