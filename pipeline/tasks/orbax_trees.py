"""Trees of arrays that Orbax wrote, found wherever a training left them.

    CHECKPOINT/_METADATA           a tree by itself (StandardCheckpointer)
    STEP/ITEM/_METADATA            the items of a step
    MANAGER/[PREFIX_]STEP/ITEM/    the steps of a CheckpointManager

Orbax works on local files: remote checkpoints are read from the copy of this
machine.
"""

from collections.abc import Collection
import re
from typing import Any

from etils import epath
import jax
import numpy as np
import orbax.checkpoint as ocp

from influence_core import errors
from pipeline.storage import file_identity, files as storage, machine_cache
from pipeline.tasks import array_trees

_TREE_FILE = '_METADATA'
# Orbax writes one of these last, where a directory cannot be renamed.
_LAST_FILES = ('_CHECKPOINT_METADATA', 'commit_success.txt')
_STEP = re.compile(r'(?:.*_)?(\d+)')


class OrbaxTree:
  """What Orbax stored, described, and read in parts.

  Attributes:
    path: where it was found.
    tree: shapes and dtypes instead of arrays. With several items there is a
      dictionary of them.
  """

  def __init__(self, path: str, step: int | None):
    """Finds the newest step, or a given one.

    Args:
      path: of a tree, an item, a step or all steps, absolute.
      step: number of the step; None for the newest.

    Raises:
      errors.InputError: Nothing is there, or nothing that Orbax wrote.
    """
    self.path, names = _find_step(path, step)
    self._items = {
      item: storage.join(self.path, item) if item else self.path
      for item in _items(names)
    }
    trees = {item: _metadata(place) for item, place in self._items.items()}
    self._is_single = len(trees) == 1
    self.tree = next(iter(trees.values())) if self._is_single else trees

  def read(self, at: str) -> Any:
    """The arrays of one part, in host memory; no others are read.

    Args:
      at: see `array_trees.part`.

    Raises:
      errors.InputError: There is no such part.
    """
    if self._is_single:
      return _restore(next(iter(self._items.values())), self.tree, at)
    item, _, rest = at.partition('/')
    if item:
      array_trees.part(self.path, self.tree, at)
      return _restore(self._items[item], self.tree[item], rest)
    return {
      item: _restore(place, self.tree[item], '')
      for item, place in self._items.items()
    }


def save(path: str, tree: Any) -> None:
  """Writes a tree to a local directory, which is there whole or not at all."""
  with ocp.StandardCheckpointer(
    multiprocessing_options=_by_this_process()
  ) as checkpointer:
    checkpointer.save(path, tree)


def is_last_file(name: str) -> bool:
  """Whether a checkpoint is none without this file."""
  return name in _LAST_FILES


def _find_step(path: str, step: int | None) -> tuple[str, list[str]]:
  """Where the items are, and the names of all files below it."""
  names = [*file_identity.tree(path)]
  if not names:
    raise errors.InputError(
      f'no checkpoint at {path}; train the model first or correct the path'
    )
  if _items(names):
    if step is not None:
      raise errors.InputError(
        f'{path} is one checkpoint, expected the directory of all steps with '
        f'step={step}; leave step out'
      )
    return path, names
  steps = _steps(path, names)
  if not steps:
    raise errors.InputError(
      f'{path} is no Orbax checkpoint of arrays: neither it nor a directory in '
      f'it has {_TREE_FILE}; correct the path'
    )
  wanted = max(steps) if step is None else step
  if wanted not in steps:
    raise errors.InputError(
      f'{path} has no step {step}; it has {", ".join(map(str, sorted(steps)))}'
    )
  directory = steps[wanted]
  return storage.join(path, directory), _below(names, directory)


def _steps(path: str, names: Collection[str]) -> dict[int, str]:
  """Directory of each finished step by its number."""
  steps = {}
  for directory in dict.fromkeys(name.partition('/')[0] for name in names):
    match = _STEP.fullmatch(directory)
    own = _below(names, directory)
    is_finished = storage.is_local(path) or any(map(is_last_file, own))
    if match and is_finished and _items(own):
      steps[int(match[1])] = directory
  return steps


def _items(names: Collection[str]) -> list[str]:
  """Items of a step that are trees, '' for a tree by itself."""
  if _TREE_FILE in names:
    return ['']
  parts = [name.split('/') for name in names]
  return sorted(x[0] for x in parts if len(x) == 2 and x[1] == _TREE_FILE)


def _below(names: Collection[str], directory: str) -> list[str]:
  start = f'{directory}/'
  return [x.removeprefix(start) for x in names if x.startswith(start)]


def _metadata(path: str) -> Any:
  """A stored tree with shapes and dtypes instead of arrays."""
  try:
    local = machine_cache.local_directory(path)
    return _handler().metadata(epath.Path(local)).tree
  except (ValueError, KeyError, OSError) as error:
    raise errors.InputError(
      f'{path} is no Orbax checkpoint of arrays '
      f'({errors.first_line(error) or type(error).__name__}); write it again'
    ) from error


def _restore(path: str, tree: Any, at: str) -> Any:
  """The arrays of a part, all others passed over."""
  wanted = {
    id(leaf) for leaf in jax.tree.leaves(array_trees.part(path, tree, at))
  }
  item = jax.tree.map(
    lambda leaf: leaf if id(leaf) in wanted else ocp.PLACEHOLDER, tree
  )
  arguments = jax.tree.map(_restore_arguments, tree)
  found = _handler().restore(
    epath.Path(machine_cache.local_directory(path)),
    args=ocp.args.PyTreeRestore(item=item, restore_args=arguments),
  )
  return array_trees.part(path, found, at)


def _restore_arguments(leaf: Any) -> ocp.RestoreArgs:
  is_text = not hasattr(leaf, 'shape')
  return ocp.RestoreArgs(restore_type=str if is_text else np.ndarray)


def _handler() -> ocp.PyTreeCheckpointHandler:
  """Reads an item by itself: a checkpointer misses files of the step above."""
  return ocp.PyTreeCheckpointHandler(multiprocessing_options=_by_this_process())


def _by_this_process() -> ocp.options.MultiprocessingOptions:
  """Without waiting for other processes, which may have nothing to store."""
  number = jax.process_index()
  return ocp.options.MultiprocessingOptions(
    primary_host=number,
    active_processes={number},
    barrier_sync_key_prefix=f'process-{number}',
  )
