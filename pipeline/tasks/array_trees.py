"""Stored trees of arrays, and whether they are those of a model.

Trees differ in kind: the dictionaries of a file stand for the dataclasses,
lists and nnx states that were saved. So leaves are compared by path, and the
variables of nnx, which have their array under `value`, with plain arrays too.
"""

from collections.abc import Mapping
import difflib
import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import errors, parameter_arrays, parameter_selection

_VALUE = '/value'
_NUM_CLOSEST = 3


def part(path: str, tree: Any, at: str) -> Any:
  """The part of a stored tree at a path such as 'state/params'; '' for all.

  Raises:
    errors.InputError: There is no such part; lists what there is.
  """
  found = tree
  for step, name in enumerate(at.split('/') if at else ()):
    children = _children(found)
    if name not in children:
      above = '/'.join(at.split('/')[:step])
      raise errors.InputError(
        f'{path} has no {at!r}; {above or "it"} has '
        f'{", ".join(children) or "no parts"}; pass one of them by at='
      )
    found = children[name]
  return found


def num_bytes(tree: Any) -> int:
  """What the arrays that are described take in memory."""
  return sum(
    # Python's own numbers have neither shape nor dtype.
    math.prod(getattr(leaf, 'shape', ()))
    * jnp.dtype(getattr(leaf, 'dtype', None) or jnp.float64).itemsize
    for leaf in map(_plain, jax.tree.leaves(tree))
  )


def check_same(path: str, stored: Any, like: Any, *, at: str) -> None:
  """Compares paths and shapes.

  Args:
    path: of the checkpoint, for errors.
    stored: what it has, described.
    like: what the model expects, described.
    at: the part of the checkpoint that `stored` is.

  Raises:
    errors.InputError: They differ; says where the model may be instead.
  """
  found = parameter_selection.all_parameters(stored)
  expected = parameter_selection.all_parameters(like)
  taken = {_stored_name(found, name) for name in expected}
  for name, leaf in expected.items():
    known = _stored_name(found, name)
    is_shape = 'absent' if known is None else _shape(found[known])
    if is_shape != _shape(leaf):
      hint = _hint(found, expected, name, at)
      raise _of_another(path, name, is_shape, _shape(leaf), hint)
  for name in sorted(found.keys() - taken):
    hint = _hint(found, expected, name, at)
    raise _of_another(path, name, _shape(found[name]), 'absent', hint)


def restored(arrays: Any, like: Any) -> Any:
  """Stored arrays in the tree that a model expects, of the same paths.

  Args:
    arrays: pytree of arrays.
    like: pytree of arrays or shapes; where it has a random key, so has the
      result.
  """
  found = parameter_selection.all_parameters(arrays)

  def take(key_path, leaf):
    name = _stored_name(found, parameter_selection.parameter_path(key_path))
    value = found[str(name)]
    if not parameter_arrays.is_random_key(leaf):
      return value
    return jax.random.wrap_key_data(
      jnp.asarray(value), impl=_implementation(leaf)
    )

  return jax.tree_util.tree_map_with_path(take, like)


def _children(tree: Any) -> dict[str, Any]:
  """The parts of a node by name; none of a leaf."""
  if isinstance(tree, Mapping):
    return {str(name): child for name, child in tree.items()}
  if isinstance(tree, (list, tuple)):
    return {str(number): child for number, child in enumerate(tree)}
  return {}


def _stored_name(found: Mapping[str, Any], name: str) -> str | None:
  """The path of a model's array in what is stored; None where it is not."""
  for known in (name, f'{name}{_VALUE}', name.removesuffix(_VALUE)):
    if known in found:
      return known
  return None


def _hint(
  found: Mapping[str, Any], expected: Mapping[str, Any], name: str, at: str
) -> str:
  """Where else the model may be in what was found."""
  if places := _places_of(found, expected):
    where = [repr(f'{at}/{place}' if at else place) for place in places]
    return f'; all that it has is at {" and at ".join(where)}, give it by at='
  if name not in expected:
    return '; pass the part that is the model by at=, or correct the path'
  shape = _shape(expected[name])
  same = [known for known in found if _shape(found[known]) == shape]
  close = difflib.get_close_matches(name, same or found, _NUM_CLOSEST, 0.0)
  listed = ', '.join(f'{known} {_shape(found[known])}' for known in close)
  return f'; closest are {listed or "none"}; correct the path, at= or the model'


def _places_of(
  found: Mapping[str, Any], expected: Mapping[str, Any]
) -> list[str]:
  """The parts of what was found that have all of a model, the uppermost first.

  An optimizer has averages of the same shapes as the parameters, further below.
  """
  first = next(iter(expected)).removesuffix(_VALUE)
  places = [
    known.removesuffix(end)
    for known in found
    for end in (f'/{first}', f'/{first}{_VALUE}')
    if known.endswith(end)
  ]
  fitting = [
    place
    for place in places
    if all(
      (name := _stored_name(found, f'{place}/{one}')) is not None
      and _shape(found[name]) == _shape(leaf)
      for one, leaf in expected.items()
    )
  ]
  return sorted(fitting, key=lambda place: place.count('/'))[:_NUM_CLOSEST]


def _of_another(
  path: str, name: str, found: Any, expected: Any, hint: str
) -> errors.InputError:
  return errors.InputError(
    f'the checkpoint at {path} is of another model: {name} is {found}, '
    f'expected {expected}{hint}'
  )


def _shape(leaf: Any) -> tuple[int, ...] | str:
  """Of an array or its description, a key by the numbers behind it."""
  leaf = _plain(leaf)
  is_number = isinstance(leaf, numbers.Number)
  shape = getattr(leaf, 'shape', () if is_number else None)
  return type(leaf).__name__ if shape is None else tuple(shape)


def _plain(leaf: Any) -> Any:
  """What is described of a random key: the numbers behind it."""
  if parameter_arrays.is_random_key(leaf):
    return jax.eval_shape(jax.random.key_data, leaf)
  return leaf


def _implementation(key: Any) -> Any:
  """That of a random key, of which there may be the description alone."""
  found: list[Any] = []
  jax.eval_shape(lambda key: found.append(jax.random.key_impl(key)), key)
  return found[0]
