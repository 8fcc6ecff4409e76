"""The form that the features of all examples of a job have.

Programs are compiled for one shape and dtype of every array, which the first
examples decide. Those of later examples are converted where that loses nothing
(a weight of 1 among weights of 1.5); others cannot be used.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import (
  errors,
  parameter_arrays,
  parameter_selection,
  types,
)
from pipeline.tasks import sequence_lengths

# Stands for the path of features that are one array.
_SINGLE = 'the array'
_NUMBERS = (bool, int, float, np.number, np.bool_)


class UnfitFeaturesError(ValueError):
  """Features of another form; names the array."""


@dataclasses.dataclass(frozen=True)
class FeatureForm:
  """Structure, shapes and dtypes.

  Attributes:
    structure: of the pytree.
    paths: of its arrays.
    shapes: of each, for a single example.
    dtypes: of each.
    sequences: paths of those whose first axis has any length, which is 0 in
      `shapes`.
  """

  structure: Any
  paths: tuple[str, ...]
  shapes: tuple[tuple[int, ...], ...]
  dtypes: tuple[np.dtype, ...]
  sequences: tuple[str, ...] = ()

  @classmethod
  def of(
    cls, examples: Sequence[types.Features], sequences: Sequence[str] = ()
  ) -> 'FeatureForm':
    """The form of a job.

    Args:
      examples: features of the first examples, pytrees of numpy arrays of the
        same structure and shapes. Integers and floats in one place make floats.
      sequences: paths of arrays whose first axis has any length.

    Raises:
      errors.InputError: There is no such sequence.
    """
    leaves, structure = jax.tree.flatten(examples[0])
    columns = zip(*map(jax.tree.leaves, examples), strict=True)
    paths = _paths(examples[0])
    shapes = [
      _free_shape(leaf, path in sequences)
      for path, leaf in zip(paths, leaves, strict=True)
    ]
    for path in sequences:
      if path not in paths or not leaves[paths.index(path)].ndim:
        raise errors.InputError(
          f'sequences has {path!r}, expected arrays among the features, which '
          f'are {", ".join(paths)}'
        )
    return cls(
      structure,
      paths,
      tuple(shapes),
      tuple(
        np.result_type(*(leaf.dtype for leaf in column)) for column in columns
      ),
      tuple(sequences),
    )

  def convert(self, features: types.Features) -> types.Features:
    """Features in this form.

    Args:
      features: pytree of numpy arrays, of a single example.

    Raises:
      UnfitFeaturesError: Names an array that is absent, unknown, of another
        shape, or cannot be converted without loss.
    """
    leaves, structure = jax.tree.flatten(features)
    if structure != self.structure:
      leaves = self._by_path(features)
    return jax.tree.unflatten(
      self.structure,
      [
        _convert(path, leaf, shape, dtype, path in self.sequences)
        for path, leaf, shape, dtype in zip(
          self.paths, leaves, self.shapes, self.dtypes, strict=True
        )
      ],
    )

  def of_batch(self, num_examples: int) -> 'FeatureForm':
    """The form of so many examples without sequences, stacked."""
    shapes = tuple((num_examples, *shape) for shape in self.shapes)
    return dataclasses.replace(self, shapes=shapes)

  def lengths(self, features: types.Features, axis: int = 0) -> tuple[int, ...]:
    """Of the sequences along an axis, in the order of paths."""
    leaves = jax.tree.leaves(features)
    return tuple(
      leaf.shape[axis]
      for path, leaf in zip(self.paths, leaves, strict=True)
      if path in self.sequences
    )

  def pad(
    self, features: types.Features, lengths: Sequence[int], axis: int = 0
  ) -> types.Features:
    """The same with sequences of these lengths, in the order of paths."""
    if not self.sequences:
      return features
    left = iter(lengths)
    leaves = [
      sequence_lengths.pad(leaf, next(left), axis)
      if path in self.sequences
      else leaf
      for path, leaf in zip(self.paths, jax.tree.leaves(features), strict=True)
    ]
    return jax.tree.unflatten(self.structure, leaves)

  def _by_path(self, features: types.Features) -> list[np.ndarray]:
    found: dict[str, Any] = {
      path or _SINGLE: leaf
      for path, leaf in parameter_selection.all_parameters(features).items()
    }
    for path in dict.fromkeys([*found, *self.paths]):
      if path not in found:
        raise UnfitFeaturesError(f'{path} is absent; give it in every example')
      if path not in self.paths:
        raise UnfitFeaturesError(
          f'there is {path}, which the first examples have not; give it in '
          'every example or in none'
        )
    return [found[path] for path in self.paths]


def prepared(features: Any) -> types.Features:
  """What `preprocess` of a task gave as a pytree of numpy arrays.

  A list of numbers, as tokenizers give, is an array.

  Raises:
    UnfitFeaturesError: There is no array, or names one that holds no numbers.
  """
  if _is_plain(features):  # As most are, and this is done for each example.
    arrays = {name: np.asarray(array) for name, array in features.items()}
  else:
    arrays = jax.tree.map(_array, features, is_leaf=_is_list_of_numbers)
  leaves = jax.tree.leaves(arrays)
  if not leaves:
    raise UnfitFeaturesError(
      f'returned a {type(features).__name__} without any array, expected a '
      'pytree of arrays'
    )
  if any(map(_fault, leaves)):
    for path, leaf in parameter_selection.all_parameters(arrays).items():
      if fault := _fault(leaf):
        raise UnfitFeaturesError(f'{path or _SINGLE} is {fault}')
  return arrays


def _is_plain(features: Any) -> bool:
  """Whether it is a dictionary of arrays and numbers of numpy."""
  return type(features) is dict and all(
    type(x) is np.ndarray or isinstance(x, np.generic)
    for x in features.values()
  )


def _is_list_of_numbers(node: Any) -> bool:
  """Also lists of such lists."""
  return isinstance(node, list) and all(
    isinstance(x, _NUMBERS) or _is_list_of_numbers(x) for x in node
  )


def _array(leaf: Any) -> np.ndarray:
  if isinstance(leaf, np.ma.MaskedArray):
    return leaf  # Told; its mask would be lost.
  try:
    return np.asarray(leaf)
  except ValueError as error:
    if not _is_list_of_numbers(leaf):
      raise
    raise UnfitFeaturesError(
      'a list has lists of several lengths, expected numbers in one shape; pad '
      'or crop them'
    ) from error


def _fault(leaf: types.Array) -> str | None:
  """Why an array cannot be used; None if it can."""
  if type(leaf) is np.ndarray and leaf.dtype.kind in 'fb':
    return None
  if isinstance(leaf, np.ma.MaskedArray):
    return 'a masked array, expected plain numbers; fill in what is missing'
  if not parameter_arrays.is_numeric(leaf):
    what = 'text' if leaf.dtype.kind in 'SU' else leaf.dtype
    return f'{what}, expected numbers'
  if leaf.dtype.kind in 'iu' and leaf.dtype.itemsize == 8:
    on_device = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
    if (on_device != leaf).any():
      largest = max(leaf.max().item(), -leaf.min().item())
      return (
        f'as large as {largest}, expected numbers that fit the '
        f'{on_device.dtype} of devices'
      )
  return None


def signature(features: types.Features, sequences: Sequence[str] = ()) -> Any:
  """What features must have in common to be stacked."""
  return jax.tree.structure(features), tuple(
    _free_shape(leaf, path in sequences)
    for path, leaf in zip(
      _paths(features), jax.tree.leaves(features), strict=True
    )
  )


def _paths(features: types.Features) -> tuple[str, ...]:
  return tuple(
    path or _SINGLE for path in parameter_selection.all_parameters(features)
  )


def _free_shape(leaf: np.ndarray, is_sequence: bool) -> tuple[int, ...]:
  """The shape, without the length of a sequence."""
  return (0, *leaf.shape[1:]) if is_sequence and leaf.ndim else leaf.shape


def _convert(
  path: str,
  leaf: np.ndarray,
  shape: tuple[int, ...],
  dtype: np.dtype,
  is_sequence: bool,
) -> np.ndarray:
  if _free_shape(leaf, is_sequence) != shape:
    raise UnfitFeaturesError(
      f'{path} has shape {leaf.shape}, expected {shape}, as in the first '
      'examples; pad or crop to one shape in preprocess, or name it in the '
      "task's sequences"
    )
  if leaf.dtype == dtype:
    return leaf
  converted = _converted(leaf, dtype)
  if converted is None:
    shown = f'{leaf} ' if not leaf.shape else ''
    raise UnfitFeaturesError(
      f'{path} is {shown}of {leaf.dtype}, which {dtype} of the first examples '
      'does not hold without loss; give one dtype in preprocess'
    )
  return converted


def _converted(leaf: np.ndarray, dtype: np.dtype) -> np.ndarray | None:
  """The array in another dtype, None if numbers would change.

  Devices compute with shorter types than Python's float and int: what is one
  type there may be converted.
  """
  if jnp.issubdtype(leaf.dtype, jnp.complexfloating) and not jnp.issubdtype(
    dtype, jnp.complexfloating
  ):
    return None
  with np.errstate(all='ignore'):
    converted = leaf.astype(dtype)
    on_device = jax.dtypes.canonicalize_dtype
    if jnp.issubdtype(dtype, jnp.floating) and (
      on_device(leaf.dtype) == on_device(dtype)
    ):
      return converted
    back = converted.astype(leaf.dtype)
  same = (back == leaf) | ((back != back) & (leaf != leaf))
  return converted if np.all(same) else None
