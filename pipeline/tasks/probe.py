"""A few raw examples, kept beside a basis to know preprocessing again.

The fingerprint of preprocessing is that of what it makes of these. They are
stored, since those of the corpus come and go.
"""

from collections.abc import Sequence
from typing import Any

from flax import serialization
import jax
import numpy as np

from influence_core import errors
from pipeline.corpora import corpus as corpus_lib
from pipeline.storage import files as storage

_OBJECTS, _SHAPE = 'objects', 'shape'


def encode(examples: Sequence[corpus_lib.RawExample]) -> bytes:
  """Raw examples as msgpack: arrays, numbers, text, dicts and lists.

  Raises:
    errors.InputError: An example holds something else.
  """
  try:
    return serialization.msgpack_serialize(
      {str(i): jax.tree.map(_packed, x) for i, x in enumerate(examples)}
    )
  except (TypeError, ValueError) as error:
    raise errors.InputError(
      f'a raw example cannot be kept ({error}); its features must be arrays, '
      'numbers or text'
    ) from error


def decode(path: str, data: bytes) -> list[corpus_lib.RawExample]:
  """The examples of `encode`; `path` is named in errors.

  Raises:
    storage.DamagedFileError: It is something else.
  """
  try:
    content = serialization.msgpack_restore(data)
    numbered = sorted((int(number), value) for number, value in content.items())
  except (TypeError, ValueError, AttributeError) as error:
    raise storage.DamagedFileError(f'{path} holds no raw examples') from error
  return [
    jax.tree.map(_unpacked, value, is_leaf=_is_packed) for _, value in numbered
  ]


def _packed(leaf: Any) -> Any:
  """Arrays of texts as lists, which msgpack knows."""
  if isinstance(leaf, np.ndarray) and leaf.dtype == object:
    return {_OBJECTS: leaf.reshape(-1).tolist(), _SHAPE: list(leaf.shape)}
  return leaf


def _is_packed(node: Any) -> bool:
  return isinstance(node, dict) and node.keys() == {_OBJECTS, _SHAPE}


def _unpacked(leaf: Any) -> Any:
  if not _is_packed(leaf):
    return leaf
  flat = np.empty(len(leaf[_OBJECTS]), object)
  flat[:] = leaf[_OBJECTS]
  return flat.reshape(leaf[_SHAPE])
