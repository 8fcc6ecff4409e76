"""Parameters as arrays of numbers, which is all that goes to devices.

Models keep other things beside their weights: Python numbers, the random keys
of dropout layers (which do nothing in a loss without randomness, but are leaves
of the tree all the same).
"""

from collections.abc import Callable
import dataclasses
import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types


@dataclasses.dataclass(frozen=True)
class RandomKeys:
  """Where the random keys of a parameter tree were.

  Attributes:
    implementations: of each key, by path.
  """

  implementations: dict[str, Any]

  def restore(self, params: types.Params) -> types.Params:
    """Parameters with their keys, which are numbers in `params`."""

    def restored(key_path, leaf):
      path = parameter_selection.parameter_path(key_path)
      if path not in self.implementations or is_random_key(leaf):
        return leaf
      return jax.random.wrap_key_data(leaf, impl=self.implementations[path])

    return jax.tree_util.tree_map_with_path(restored, params)

  def restoring(self, function: Callable) -> Callable:
    """`function` of parameters first, called with their keys."""
    if not self.implementations:
      return function

    @functools.wraps(function)  # Whose place errors name.
    def restoring(params, *more):
      return function(self.restore(params), *more)

    return restoring


def as_arrays(params: types.Params) -> tuple[types.Params, RandomKeys]:
  """Parameters whose leaves are all arrays of numbers.

  Args:
    params: pytree of arrays, Python numbers and random keys.

  Returns:
    The same tree, with the numbers behind each key in its place, and what is
    needed to get the keys back.

  Raises:
    errors.InputError: Names a leaf that is anything else, or two of one path;
      or there is none at all.
  """
  _check_paths(params)
  implementations = {}

  def converted(key_path, leaf):
    path = parameter_selection.parameter_path(key_path)
    if is_random_key(leaf):
      implementations[path] = jax.random.key_impl(leaf)
      return np.asarray(jax.random.key_data(leaf))
    if isinstance(leaf, (bool, int, float, complex)):
      dtype = jax.dtypes.canonicalize_dtype(np.asarray(leaf).dtype)
      return np.asarray(leaf, dtype)
    if not _is_array_of_numbers(leaf):
      raise errors.InputError(
        f'the parameter {path!r} is {_described(leaf)}, expected an array of '
        'numbers; keep it out of what load_parameters returns, or out of the '
        'leaves of that tree'
      )
    if isinstance(leaf, np.ndarray) and not leaf.dtype.isnative:
      return leaf.astype(leaf.dtype.newbyteorder('='))
    return leaf

  found = jax.tree_util.tree_map_with_path(converted, params)
  return found, RandomKeys(implementations)


def _check_paths(params: types.Params) -> None:
  """Refuses a tree without leaves, or with leaves that have one name."""
  paths = [
    parameter_selection.parameter_path(key_path)
    for key_path, _ in jax.tree_util.tree_leaves_with_path(params)
  ]
  if not paths:
    raise errors.InputError(
      f'the parameters are a {type(params).__name__} without any array, '
      'expected a pytree of arrays; return the trained parameters from '
      'load_parameters'
    )
  if len(set(paths)) < len(paths):
    path = next(x for x, y in itertools.pairwise(sorted(paths)) if x == y)
    raise errors.InputError(
      f'two parameters have the path {path!r}; rename one of them'
    )


def is_numeric(leaf: types.Array | np.generic) -> bool:
  """Whether an array holds numbers or truth values."""
  return leaf.dtype == np.bool_ or jnp.issubdtype(leaf.dtype, jnp.number)


def is_random_key(leaf: Any) -> bool:
  """Whether an array, or what describes one, is of random keys."""
  dtype = getattr(leaf, 'dtype', None)
  return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _is_array_of_numbers(leaf: Any) -> bool:
  return (
    isinstance(leaf, (np.ndarray, np.generic, jax.Array))
    and not isinstance(leaf, np.ma.MaskedArray)
    and is_numeric(leaf)
  )


def _described(leaf: Any) -> str:
  if isinstance(leaf, (np.ndarray, np.generic)) and not is_numeric(leaf):
    return f'an array of {leaf.dtype}'
  return f'a {type(leaf).__name__}'
