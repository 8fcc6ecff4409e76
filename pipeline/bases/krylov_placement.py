"""Where Krylov vectors live: devices, host memory or files; what that takes."""

import jax

from influence_core import errors
from influence_core.curvature import operator as curvature_operator
from influence_core.devices import memory as device_memory
from influence_core.eigenpairs import (
  device_vectors,
  host_vectors,
  krylov_vectors,
)
from pipeline.bases import vector_files
from pipeline.bases.fit_basis_config import Resources
from pipeline.storage import disk_room, files as storage


def reserved_bytes(num_bytes: int, resources: Resources) -> int:
  """Memory of each device to leave for vectors, in case they fit there.

  Args:
    num_bytes: of all vectors on one device.
    resources: what was asked for.
  """
  never_there = ('disk',) if _is_cpu() else ('disk', 'host')
  return 0 if resources.placement in never_there else num_bytes


def choose(
  operator: curvature_operator.CurvatureOperator,
  num_bytes: int,
  resources: Resources,
  directory: str,
) -> str:
  """The first place that this process's vectors fit, or what was asked for.

  Args:
    operator: whose vectors they are; it has taken its memory.
    num_bytes: of all vectors of this process.
    resources: what was asked for.
    directory: of files.

  Returns:
    'device', 'host' or 'disk'.

  Raises:
    errors.InputError: They do not fit there.
  """
  left = operator.unused_bytes * jax.local_device_count()
  place = resources.placement
  if place == 'auto':
    memory = left if _is_cpu() else device_memory.host_budget_bytes()
    place = 'host' if num_bytes <= memory else 'disk'
    if num_bytes <= left and not _is_cpu():
      place = 'device'
  if place == 'host':
    device_memory.check_host_memory(
      num_bytes,
      'Krylov vectors',
      'pass --krylov_placement disk, --krylov_dtype bfloat16, --max_vectors or '
      'fewer iterations',
    )
  if place == 'device' and num_bytes > left:
    raise errors.InputError(
      f'Krylov vectors take {num_bytes:,} bytes, but {left:,} are left on the '
      'devices; pass --krylov_placement host or disk, --krylov_dtype bfloat16 '
      'or --max_vectors'
    )
  if place == 'disk' and not storage.is_local(directory):
    raise errors.InputError(
      f'{num_bytes:,} bytes of Krylov vectors do not fit in memory and '
      f'{directory} is on no local disk; pass --work_dir on one'
    )
  return place


def make_vectors(
  place: str, files: vector_files.VectorFiles, num_rows: int
) -> krylov_vectors.KrylovVectors:
  """No vectors yet, with room for so many; on disk, the files themselves."""
  if place == 'disk':
    return host_vectors.HostVectors(files)
  if place == 'host':
    return host_vectors.HostVectors(
      host_vectors.MemoryRows(num_rows, files.num_columns, files.dtype)
    )
  slice_size = files.num_columns // jax.local_device_count()
  return device_vectors.DeviceVectors(num_rows, slice_size, files.dtype)


def check_disk(directory: str, num_bytes: int) -> None:
  """Raises `errors.InputError` where files of this size will not fit."""
  free = disk_room.free_bytes(directory)
  needed = num_bytes - sum(storage.sizes(directory).values())
  if free is not None and needed > free:
    raise errors.InputError(
      f'{needed:,} bytes of disk are needed at {directory} and {free:,} are '
      'free; choose another --work_dir, fewer iterations, --max_vectors or '
      '--krylov_dtype bfloat16'
    )


def _is_cpu() -> bool:
  """Whether memory of the devices is that of the host."""
  return jax.default_backend() == 'cpu'
