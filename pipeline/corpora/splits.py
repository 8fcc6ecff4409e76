"""Splits in TFDS's words: 'train', 'test[:100]', 'train+test[10%:]'."""

from collections.abc import Mapping
from typing import Any

import tensorflow_datasets as tfds

from influence_core import errors
from pipeline.corpora.corpus import SourceShard


def choose(
  splits: Mapping[str, Any], split: str, *, of: str
) -> list[SourceShard]:
  """The parts of files that make up a split.

  Args:
    splits: TFDS's descriptions of all splits, by name.
    split: TFDS split.
    of: names the corpus in errors.

  Raises:
    errors.InputError: There is no such split, or nothing in it.
  """
  try:
    slices = tfds.core.splits.AbstractSplit.from_spec(split)
    absolute = slices.to_absolute(splits)
    instructions = splits[split].file_instructions
  except (ValueError, KeyError) as error:
    raise errors.InputError(
      f'{of} has no split {split!r}; it has {", ".join(sorted(splits))}, each '
      "with an optional slice such as 'test[:100]'"
    ) from error
  if any((x.from_ or 0) > x.to for x in absolute if x.to is not None):
    raise errors.InputError(
      f'split {split!r} of {of} has a slice that ends before it begins; choose '
      'another one'
    )
  if not instructions:
    raise errors.InputError(
      f'split {split!r} of {of} holds no example; choose another slice'
    )
  return [
    SourceShard(_base_name(part.filename), part.skip, part.skip + part.take)
    for part in instructions
  ]


def _base_name(path: str) -> str:
  return path.rsplit('/', 1)[-1]
