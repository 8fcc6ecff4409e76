"""Sequences of many lengths, padded with zeros to few.

A program is compiled for one shape, so of texts of 20 to 2,000 tokens each
would cost as much as the longest. Padded to the next of a few lengths, its
buckets, an example costs little more than itself; a loss that gives padding no
weight has the same gradient at all lengths.
"""

from collections.abc import Sequence
import itertools

import numpy as np

from influence_core import errors

# The first of the lengths that are found; those after it grow by a half or a
# third by turns, so that at most a third of a sequence is padding.
_SHORTEST = 16


def check_buckets(buckets: Sequence[int]) -> None:
  """Raises `errors.InputError` unless lengths are positive and rise."""
  if any(not isinstance(x, int) or x < 1 for x in buckets) or any(
    a >= b for a, b in itertools.pairwise(buckets)
  ):
    raise errors.InputError(
      f'buckets are {list(buckets)}, expected rising positive lengths such as '
      '[64, 128, 256]'
    )


def bucket(length: int, buckets: Sequence[int]) -> int | None:
  """The smallest bucket that holds a length; None where it is too long.

  Args:
    length: of a sequence.
    buckets: rising; empty for 16, 24, 32, 48, 64, 96, ...
  """
  if buckets:
    return next((size for size in buckets if size >= length), None)
  size = _SHORTEST
  while size < length:
    if size + size // 2 >= length:
      return size + size // 2
    size *= 2
  return size


def pad(leaf: np.ndarray, length: int, axis: int = 0) -> np.ndarray:
  """Sequences with zeros after them, `length` along an axis."""
  missing = length - leaf.shape[axis]
  if not missing:
    return leaf
  return np.pad(
    leaf, [(0, missing if x == axis else 0) for x in range(leaf.ndim)]
  )
