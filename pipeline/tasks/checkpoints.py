"""Array trees in Orbax checkpoints: model parameters and eigenvectors.

Orbax works on local files: remote checkpoints are read from the copy of this
machine, and written by way of a temporary one.
"""

import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from influence_core import errors, parameter_selection
from influence_core.devices import memory as device_memory
from pipeline.storage import disk_room, files as storage, machine_cache

# Orbax writes this file last, and reads no checkpoint without it.
_LAST_FILE = '_CHECKPOINT_METADATA'

# Files that describe a checkpoint take less.
_OVERHEAD_BYTES = 1 << 20


def save_arrays(path: str, tree: Any) -> None:
  """Writes a pytree of arrays as an Orbax checkpoint.

  Orbax writes to a temporary name and renames it, so a checkpoint is there
  whole or not at all. An existing one is never replaced.

  Raises:
    errors.InputError: There is something at `path` already, or it cannot be
      written.
  """
  path = storage.absolute(path)
  if storage.exists(path):
    raise errors.InputError(
      f'{path} already exists; choose another directory or delete it'
    )
  if storage.is_local(path):
    _save_local(path, tree)
    return
  with tempfile.TemporaryDirectory() as temporary:
    _save_local(f'{temporary}/checkpoint', tree)
    _upload(pathlib.Path(temporary, 'checkpoint'), path)


def _save_local(path: str, tree: Any) -> None:
  # Orbax tells of a full disk in the words of several libraries, at length.
  disk_room.check_room(path, _num_bytes(tree) + _OVERHEAD_BYTES)
  try:
    with ocp.StandardCheckpointer(
      multiprocessing_options=_by_this_process()
    ) as checkpointer:
      checkpointer.save(path, tree)
  except (OSError, ValueError) as error:  # A full disk is either of them.
    raise errors.InputError(
      f'cannot write {path} ({_reason(error)}); correct that and run the '
      'same command again'
    ) from error


def _upload(directory: pathlib.Path, path: str) -> None:
  files = [file for file in directory.rglob('*') if file.is_file()]
  for file in sorted(files, key=lambda file: file.name == _LAST_FILE):
    name = file.relative_to(directory).as_posix()
    storage.create_exclusive(storage.join(path, name), file.read_bytes())


def load_arrays(path: str, like: Any | None = None) -> Any:
  """Reads an Orbax checkpoint into host memory.

  Args:
    path: directory of the checkpoint.
    like: pytree of arrays or shapes that the model expects, e.g. from
      `jax.eval_shape(model.init, ...)`. The checkpoint must have the same
      paths and shapes. None returns whatever is stored, as nested dicts.

  Returns:
    A pytree of numpy arrays.

  Raises:
    errors.InputError: No checkpoint is there, it belongs to another model, or
      it does not fit memory.
  """
  path = storage.absolute(path)
  local = _local_copy(path)
  with _checkpointer() as checkpointer:
    stored = _metadata(checkpointer, path, local)
    device_memory.check_host_memory(
      _num_bytes(stored),
      f'the arrays of {path}',
      'load them on a larger machine',
    )
    if like is not None:
      _check_same_model(path, stored, like)
    arguments = _numpy_restore_arguments(stored if like is None else like)
    return checkpointer.restore(
      local, args=ocp.args.PyTreeRestore(item=like, restore_args=arguments)
    )


def num_bytes(path: str) -> int:
  """What the arrays of a checkpoint take in memory.

  Raises:
    errors.InputError: No checkpoint of arrays is there.
  """
  path = storage.absolute(path)
  with _checkpointer() as checkpointer:
    return _num_bytes(_metadata(checkpointer, path, _local_copy(path)))


def _local_copy(path: str) -> str:
  if not storage.exists(path):
    raise errors.InputError(
      f'no checkpoint at {path}; train the model first or correct the path'
    )
  return machine_cache.local_directory(path)


def _checkpointer() -> ocp.Checkpointer:
  return ocp.Checkpointer(
    ocp.PyTreeCheckpointHandler(), multiprocessing_options=_by_this_process()
  )


def _metadata(checkpointer: ocp.Checkpointer, path: str, local: str) -> Any:
  """The tree of a checkpoint, shapes and dtypes instead of arrays."""
  try:
    stored = checkpointer.metadata(local).item_metadata
    if stored is None:
      raise ValueError('it has no tree metadata')
    return stored.tree
  except (ValueError, KeyError, OSError) as error:
    raise errors.InputError(
      f'{path} is no Orbax checkpoint of arrays ({_reason(error)})'
    ) from error


def _num_bytes(stored: Any) -> int:
  return sum(
    # Python's own numbers have neither shape nor dtype.
    math.prod(getattr(leaf, 'shape', ()))
    * jnp.dtype(getattr(leaf, 'dtype', jnp.float64)).itemsize
    for leaf in jax.tree.leaves(stored)
  )


def _by_this_process() -> ocp.options.MultiprocessingOptions:
  """Without waiting for other processes, which may have nothing to store."""
  number = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=number,
    active_processes={number},
    barrier_sync_key_prefix=f'process-{number}',
  )


def _numpy_restore_arguments(tree: Any) -> Any:
  return jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)


def _check_same_model(path: str, stored: Any, like: Any) -> None:
  found = parameter_selection.all_parameters(stored)
  expected = parameter_selection.all_parameters(like)
  for name in sorted(found.keys() | expected.keys()):
    shapes = [
      tuple(tree[name].shape) if name in tree else 'absent'
      for tree in (found, expected)
    ]
    if shapes[0] != shapes[1]:
      raise errors.InputError(
        f'the checkpoint at {path} is of another model: {name} is {shapes[0]}, '
        f'expected {shapes[1]}; correct the path or the model'
      )


def _reason(error: BaseException) -> str:
  return errors.first_line(error) or type(error).__name__
