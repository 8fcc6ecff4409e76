"""Arrays in checkpoints: parameters as trainings leave them, eigenvectors."""

from collections.abc import Callable, Sequence
import functools
import pathlib
import tempfile
from typing import Any

from influence_core import errors
from influence_core.devices import memory as device_memory
from pipeline.storage import disk_room, files as storage
from pipeline.tasks import array_trees, orbax_trees, weight_files

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
  disk_room.check_room(path, array_trees.num_bytes(tree) + _OVERHEAD_BYTES)
  try:
    orbax_trees.save(path, tree)
  except (OSError, ValueError) as error:  # A full disk is either of them.
    raise errors.InputError(
      f'cannot write {path} ({_reason(error)}); correct that and run the '
      'same command again'
    ) from error


def _upload(directory: pathlib.Path, path: str) -> None:
  files = [file for file in directory.rglob('*') if file.is_file()]
  for file in sorted(
    files, key=lambda file: orbax_trees.is_last_file(file.name)
  ):
    name = file.relative_to(directory).as_posix()
    storage.create_exclusive(storage.join(path, name), file.read_bytes())


def load_arrays(
  path: str,
  like: Any | None = None,
  *,
  at: str | Sequence[str] = '',
  step: int | None = None,
  names: weight_files.Names | None = None,
) -> Any:
  """Reads parameters into host memory, of what a training left.

  Args:
    path: local or gs://, of one of
      an Orbax checkpoint: a tree, an item, a step, or the directory of a
        CheckpointManager;
      a .safetensors file, the .safetensors.index.json of several, or a
        directory with model.safetensors;
      a .npz file.
    like: pytree of arrays or shapes that the model expects, e.g. from
      `jax.eval_shape(model.init, ...)` or `nnx.state(model)`. There must be
      the same paths and shapes. None gives whatever is stored, as nested dicts.
    at: the part that is wanted, such as 'params' or 'state/params' of a whole
      train state; several make a dict of them. No other arrays are read.
    step: of a CheckpointManager; None for the newest.
    names: of safetensors and .npz files: regular expression of whole names ->
      path, or None for what is left out; the first that matches counts. With
      the order of axes where the file has another one: that of
      {r'fc(\\d)\\.weight': (r'Dense_\\1/kernel', (1, 0))} transposes. Without
      such a table names are paths with '.' or '/'.

  Returns:
    A pytree of numpy arrays with the dtypes of the file, of the kind of
    `like`.

  Raises:
    errors.InputError: No checkpoint is there, it belongs to another model, or
      it does not fit memory.
  """
  path = storage.absolute(path)
  stored = _open(path, step, names)

  def parts(take: Callable[[str], Any]) -> Any:
    if isinstance(at, str):
      return take(at)
    return {one.rpartition('/')[2]: take(one) for one in at}

  described = parts(functools.partial(array_trees.part, path, stored.tree))
  device_memory.check_host_memory(
    array_trees.num_bytes(described),
    f'the arrays of {path}',
    'load them on a larger machine',
  )
  if like is None:
    return parts(stored.read)
  within = at if isinstance(at, str) else ''
  array_trees.check_same(stored.path, described, like, at=within)
  return array_trees.restored(parts(stored.read), like)


def _open(
  path: str, step: int | None, names: weight_files.Names | None
) -> orbax_trees.OrbaxTree | weight_files.WeightFiles:
  """What is stored, described."""
  file = weight_files.find(path)
  if file is None:
    if names is not None:
      raise errors.InputError(
        f'{path} has no safetensors or .npz file, for which names= is; leave '
        'names out or correct the path'
      )
    return orbax_trees.OrbaxTree(path, step)
  if step is not None:
    raise errors.InputError(
      f'{file} is one file of weights, expected the directory of a '
      f'CheckpointManager with step={step}; leave step out'
    )
  return weight_files.WeightFiles(file, names)


def num_bytes(path: str) -> int:
  """What the arrays of a checkpoint take in memory.

  Raises:
    errors.InputError: No checkpoint of arrays is there.
  """
  return array_trees.num_bytes(_open(storage.absolute(path), None, None).tree)


def _reason(error: BaseException) -> str:
  return errors.first_line(error) or type(error).__name__
