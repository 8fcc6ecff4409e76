"""Weights under names, as other libraries write them: safetensors and .npz.

A name such as `encoder.layers.0.weight` is the path encoder/layers/0/weight,
or what a table of regular expressions makes of it.
"""

from collections.abc import Callable, Iterator, Mapping
import contextlib
import functools
import json
import re
from typing import Any, NamedTuple
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import safetensors

from influence_core import errors
from influence_core.devices import memory as device_memory
from pipeline.storage import files as storage, machine_cache
from pipeline.tasks import array_trees

# Regular expression of whole names -> path, with the order of axes where that
# is another; None for arrays that are left out.
Names = Mapping[str, str | tuple[str, tuple[int, ...]] | None]

_SAFETENSORS, _INDEX, _NPZ = '.safetensors', '.safetensors.index.json', '.npz'
# What Hugging Face calls the weights of a model in its directory.
_IN_DIRECTORY = ('model.safetensors.index.json', 'model.safetensors')
_KINDS = {'F': 'float', 'I': 'int', 'U': 'uint', 'BF': 'bfloat'}


class _Stored(NamedTuple):
  """An array of a file.

  Attributes:
    name: in the file.
    described: shape and dtype in the file.
    read: gives it.
    axes: their order in the tree; None for that of the file.
  """

  name: str
  described: jax.ShapeDtypeStruct
  read: Callable[[], np.ndarray]
  axes: tuple[int, ...] | None = None

  @property
  def in_tree(self) -> jax.ShapeDtypeStruct:
    if self.axes is None:
      return self.described
    shape = tuple(self.described.shape[axis] for axis in self.axes)
    return jax.ShapeDtypeStruct(shape, self.described.dtype)


class WeightFiles:
  """Named weights as a tree, described, and read in parts.

  Attributes:
    path: of the file, or of the index of several.
    tree: nested dictionaries with shapes and dtypes instead of arrays.
  """

  def __init__(self, path: str, names: Names | None):
    """Reads the headers.

    Args:
      path: one that `find` gave.
      names: see `checkpoints.load_arrays`.

    Raises:
      errors.InputError: A file is missing or damaged, or names do not fit.
    """
    self.path = path
    stored = _described(path)
    if not stored:
      raise errors.InputError(
        f'{path} has no arrays, expected weights of a model; write it again'
      )
    self._by_path = _by_path(path, stored, names)
    self.tree = _nested(path, self._by_path, lambda one: one.in_tree)

  def read(self, at: str) -> Any:
    """The arrays of one part, in host memory; no others are read.

    Args:
      at: see `array_trees.part`.

    Raises:
      errors.InputError: There is no such part, or a file is damaged.
    """
    array_trees.part(self.path, self.tree, at)
    chosen = {
      place: one
      for place, one in self._by_path.items()
      if not at or f'{place}/'.startswith(f'{at}/')
    }
    with _reading(self.path):
      arrays = _nested(self.path, chosen, _in_tree)
    return array_trees.part(self.path, arrays, at)


def find(path: str) -> str | None:
  """The file with the weights of `path`; None where it has no such files."""
  if path.endswith((_SAFETENSORS, _INDEX, _NPZ)):
    return path
  for name in _IN_DIRECTORY:
    if storage.exists(storage.join(path, name)):
      return storage.join(path, name)
  return None


def _described(path: str) -> list[_Stored]:
  if not path.endswith(_INDEX):
    return _of_file(path)
  directory = path.rpartition('/')[0]
  return [
    one
    for name in _files_of_index(path)
    for one in _of_file(storage.join(directory, name))
  ]


def _files_of_index(path: str) -> list[str]:
  try:
    files = [
      *dict.fromkeys(
        json.loads(storage.read_bytes(path))['weight_map'].values()
      )
    ]
  except (ValueError, LookupError, TypeError, AttributeError) as error:
    raise storage.DamagedFileError(
      f'{path} is no index of safetensors files ({error!r}), expected a '
      '"weight_map" of names; write it again'
    ) from error
  for name in files:
    if (
      not isinstance(name, str)
      or '/' in name
      or not name.endswith(_SAFETENSORS)
    ):
      raise storage.DamagedFileError(
        f'{path} names the file {name!r}, expected NAME{_SAFETENSORS} beside it'
      )
  return files


def _of_file(path: str) -> list[_Stored]:
  """The arrays of a file, which stays open for them, or is loaded."""
  local = machine_cache.local_file(path)
  with _reading(path):
    if path.endswith(_NPZ):
      return _of_npz(local)
    file = safetensors.safe_open(local, framework='numpy')
    names = file.keys()
    return [_of_safetensors(file, name) for name in names]


def _of_npz(local: str) -> list[_Stored]:
  with zipfile.ZipFile(local) as archive:
    num_bytes = sum(info.file_size for info in archive.infolist())
  device_memory.check_host_memory(
    num_bytes, f'the arrays of {local}', 'load them on a larger machine'
  )
  with np.load(local, allow_pickle=False) as content:
    arrays = dict(content.items())
  return [
    _Stored(
      name,
      jax.ShapeDtypeStruct(array.shape, array.dtype),
      functools.partial(arrays.__getitem__, name),
    )
    for name, array in arrays.items()
  ]


def _of_safetensors(file: Any, name: str) -> _Stored:
  found = file.get_slice(name)
  dtype = _dtype(name, found.get_dtype())
  return _Stored(
    name,
    jax.ShapeDtypeStruct(tuple(found.get_shape()), dtype),
    functools.partial(file.get_tensor, name),
  )


def _dtype(name: str, text: str) -> np.dtype:
  """The dtype that safetensors writes as 'BF16' or 'BOOL'."""
  match = re.fullmatch(r'(BF|F|I|U)(\d+)', text)
  if text == 'BOOL':
    return np.dtype(bool)
  if not match:
    raise errors.InputError(
      f'the array {name} is of {text}, expected numbers of one size such as '
      'F32 or BF16; convert it first'
    )
  return jnp.dtype(f'{_KINDS[match[1]]}{match[2]}')


def _in_tree(one: _Stored) -> np.ndarray:
  array = one.read()
  if one.axes is None:
    return array
  return np.ascontiguousarray(array.transpose(one.axes))


@contextlib.contextmanager
def _reading(path: str) -> Iterator[None]:
  try:
    yield
  except (
    ValueError,
    OSError,
    EOFError,
    zipfile.BadZipFile,
    safetensors.SafetensorError,
  ) as error:
    raise storage.DamagedFileError(
      f'{path} is no file of weights ({errors.first_line(error)}); write it '
      'again'
    ) from error


def _by_path(
  path: str, stored: list[_Stored], names: Names | None
) -> dict[str, _Stored]:
  """Each array by its path in the tree."""
  rules = [
    (_compiled(pattern), target) for pattern, target in (names or {}).items()
  ]
  found: dict[str, _Stored] = {}
  unknown = []
  for one in stored:
    matches = [(x.fullmatch(one.name), target) for x, target in rules]
    match, target = next((x for x in matches if x[0]), (None, None))
    if names is None:
      place, axes = one.name.replace('.', '/'), None
    elif match is None:
      unknown.append(one.name)
      continue
    elif target is None:
      continue
    else:
      template, axes = (target, None) if isinstance(target, str) else target
      place = _expanded(match, template)
    if place in found:
      raise errors.InputError(
        f'{path} has {found[place].name!r} and {one.name!r}, both for {place}; '
        'correct names='
      )
    _check_axes(one, axes)
    found[place] = one._replace(axes=axes)
  if unknown:
    raise errors.InputError(
      f'{path} has {len(unknown)} arrays that names= says nothing of, the '
      f'first is {unknown[0]!r}; give their paths, or None to leave them out'
    )
  return found


def _compiled(pattern: str) -> re.Pattern:
  try:
    return re.compile(pattern)
  except re.error as error:
    raise errors.InputError(
      f'names= has {pattern!r}, which is no regular expression ({error}); '
      'correct it'
    ) from error


def _expanded(match: re.Match, template: str) -> str:
  try:
    return match.expand(template)
  except (re.error, IndexError) as error:
    raise errors.InputError(
      f'names= has the path {template!r} for {match.re.pattern!r} ({error}); '
      'correct it'
    ) from error


def _check_axes(one: _Stored, axes: tuple[int, ...] | None) -> None:
  num_axes = len(one.described.shape)
  if axes is not None and sorted(axes) != [*range(num_axes)]:
    raise errors.InputError(
      f'names= has the axes {axes} for {one.name!r} of shape '
      f'{one.described.shape}, expected each of 0 to {num_axes - 1} once'
    )


def _nested(
  path: str, by_path: Mapping[str, _Stored], take: Callable[[_Stored], Any]
) -> dict[str, Any]:
  """Dictionaries of dictionaries, as paths say."""
  tree: dict[str, Any] = {}
  for place, one in by_path.items():
    *above, last = place.split('/')
    node = tree
    for name in above:
      node = node.setdefault(name, {})
      if not isinstance(node, dict):
        break
    if not isinstance(node, dict) or last in node:
      raise errors.InputError(
        f'{path} has an array for {place} and another one above or below it; '
        'correct names='
      )
    node[last] = take(one)
  return tree
