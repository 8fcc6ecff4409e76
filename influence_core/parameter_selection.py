"""Chooses parameters by path, and puts them back.

Curvature and gradients are taken with respect to the selected parameters
only; the others stay constants of the loss. A selection is a flat dictionary
from path to array, so that the rest of the system never depends on the kind
of tree (dict, nnx state, dataclass) that a model keeps its parameters in.
"""

from collections.abc import Iterable, Sequence
import re

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types


def parameter_path(key_path: tuple) -> str:
  """The path of a tree leaf, e.g. 'params/Dense_0/kernel'."""
  return jax.tree_util.keystr(key_path, simple=True, separator='/')


def all_parameters(params: types.Params) -> dict[str, types.Array]:
  """Every leaf of `params` by its path, in tree order."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  return {parameter_path(key_path): leaf for key_path, leaf in leaves}


def select_parameters(
  params: types.Params, patterns: Sequence[str] = ('.*',)
) -> dict[str, types.Array]:
  """The floating-point leaves whose path matches one of `patterns`.

  Leaves without any number, of size 0, are left out.

  Args:
    params: pytree of arrays.
    patterns: regular expressions, searched for in each path. Those that begin
      with '!' leave out what they match; with no others, all else is selected.

  Returns:
    The selected leaves by path, sorted by path (the order in which they are
    laid out in flat vectors).

  Raises:
    errors.InputError: A pattern is no regular expression, or nothing matches.
  """
  excluded = _compiled(
    [text[1:] for text in patterns if text.startswith('!')], 'parameter_paths'
  )
  included = _compiled(
    [text for text in patterns if not text.startswith('!')] or ['.*'],
    'parameter_paths',
  )
  leaves = all_parameters(params)
  selected = {
    path: leaves[path]
    for path in sorted(leaves)
    if 0 not in np.shape(leaves[path])
    and jnp.issubdtype(jnp.result_type(leaves[path]), jnp.floating)
    and any(pattern.search(path) for pattern in included)
    and not any(pattern.search(path) for pattern in excluded)
  }
  if not selected:
    there = errors.abridged(sorted(leaves)) or 'no parameters'
    raise errors.InputError(
      f'parameter_paths {list(patterns)} selects no floating-point parameter; '
      f'the model has {there}'
    )
  return selected


def replace_parameters(
  params: types.Params, selected: types.SelectedParameters
) -> types.Params:
  """`params` with the leaves named in `selected` exchanged for its arrays."""
  return jax.tree_util.tree_map_with_path(
    lambda key_path, leaf: selected.get(parameter_path(key_path), leaf), params
  )


def batch_gradient(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  selected: types.SelectedParameters,
  batch: types.Features,
) -> dict[str, jax.Array]:
  """The gradient of the sum of losses by the selected parameters; traceable.

  Args:
    per_example_loss: (params, [batch, ...] features) -> losses.
    params: pytree of arrays.
    selected: parameters by path, in whose place they are taken.
    batch: pytree of [batch, ...] arrays.
  """

  def total(selected):
    replaced = replace_parameters(params, selected)
    return jnp.sum(per_example_loss(replaced, batch).astype(jnp.float32))

  return jax.grad(total)(selected)


def num_parameters(selected: types.SelectedParameters) -> int:
  """The number of scalars in a selection."""
  return sum(leaf.size for leaf in selected.values())


def check_projection_dim(
  projection_dim: int, selected: types.SelectedParameters
) -> None:
  """Refuses a basis with more vectors than there are parameters.

  Raises:
    errors.InputError: Names both numbers.
  """
  size = num_parameters(selected)
  if projection_dim > size:
    raise errors.InputError(
      f'projection_dim is {projection_dim}, but {size} parameters are '
      f'selected, which have at most as many directions; pass '
      f'--projection_dim {size} or less'
    )


def num_vectors(eigenvectors: types.SelectedParameters) -> int:
  """The leading dimension shared by all leaves of a basis."""
  return len(next(iter(eigenvectors.values())))


def group_parameters(
  paths: Iterable[str], patterns: Sequence[str]
) -> tuple[dict[str, int], tuple[str, ...]]:
  """Splits parameters into groups, each parameter in exactly one.

  Args:
    paths: parameter paths.
    patterns: regular expressions, searched for in each path; the first that is
      found decides. None at all makes one group.

  Returns:
    The group number of each path, and the groups' names: the patterns, then
    'other' where some path matches none.

  Raises:
    errors.InputError: A pattern is no regular expression or decides for no
      path.
  """
  compiled = _compiled(patterns, 'parameter_groups')
  group_of = {}
  for path in paths:
    found = [i for i, pattern in enumerate(compiled) if pattern.search(path)]
    group_of[path] = found[0] if found else len(compiled)
  for number, pattern in enumerate(patterns):
    if number not in group_of.values():
      raise errors.InputError(
        f'parameter group {pattern!r} has no parameter; those that no earlier '
        f'group takes are {errors.abridged(sorted(group_of))}'
      )
  has_others = bool(patterns) and len(compiled) in group_of.values()
  return group_of, (*patterns, 'other') if has_others else tuple(patterns)


def _compiled(patterns: Sequence[str], source: str) -> list[re.Pattern]:
  try:
    return [re.compile(pattern) for pattern in patterns]
  except re.error as error:
    raise errors.InputError(
      f'{source} has {error.pattern!r}, which is not a regular expression '
      f'({error}); correct it'
    ) from error
