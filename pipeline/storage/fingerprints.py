"""Fingerprints: what a stored result depends on, in a few short strings.

They are written into every basis and index and compared before anything is
reused, so that projections of one model are never scored with another.
"""

from collections.abc import Mapping
import hashlib
import json
from typing import Any

import jax
import numpy as np

from influence_core import errors, parameter_selection, types

_DIGEST_BYTES = 8


class StaleFingerprintError(errors.InputError):
  """Two things that must belong together do not."""


def of_arrays(tree: Any) -> str:
  """Fingerprint of names, shapes, dtypes and exact values of a pytree."""
  digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
  leaves = parameter_selection.all_parameters(tree)
  for path in sorted(leaves):
    leaf = np.ascontiguousarray(jax.device_get(leaves[path]))
    digest.update(f'{path} {leaf.dtype.name} {leaf.shape};'.encode())
    digest.update(leaf.reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


def of_json(content: Any) -> str:
  """Fingerprint of anything JSON can hold, independent of key order."""
  return of_bytes(json.dumps(content, sort_keys=True).encode())


def of_bytes(data: bytes) -> str:
  """Fingerprint of bytes as they are."""
  return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()


def of_paths(selected: types.SelectedParameters) -> str:
  """Fingerprint of which parameters are selected, with their shapes."""
  return of_json({path: list(leaf.shape) for path, leaf in selected.items()})


def check_equal(
  found: Mapping[str, str],
  expected: Mapping[str, str],
  *,
  what: str,
  next_step: str,
) -> None:
  """Compares fingerprints field by field.

  Args:
    found: of the thing at hand, by field name.
    expected: of what it is to be used with; its fields are compared.
    what: names the thing at hand in the message.
    next_step: what the user can do about it.

  Raises:
    StaleFingerprintError: Names the first field that differs.
  """
  if difference := first_difference(found, expected):
    field, other, value = difference
    raise StaleFingerprintError(
      f'{what} was made with other {field.replace("_", " ")} '
      f'({other}, expected {value}); {next_step}'
    )


def first_difference(
  found: Mapping[str, Any], expected: Mapping[str, Any]
) -> tuple[str, Any, Any] | None:
  """The first of `expected`'s fields that `found` does not have the same.

  Values are compared as JSON, in which a tuple comes back as a list.

  Returns:
    (field, found value, expected value), or None.
  """
  for field, value in expected.items():
    if json.dumps(found.get(field), sort_keys=True) != json.dumps(
      value, sort_keys=True
    ):
      return field, found.get(field), value
  return None
