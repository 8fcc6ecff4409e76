"""Splits in TFDS's words: 'train', 'test[:100]', 'train+test[10%:]'."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_datasets as tfds

from influence_core import errors
from pipeline.corpora.corpus import SourceShard


def choose(
  files: Mapping[str, Sequence[tuple[str, int]]], split: str, *, of: str
) -> list[SourceShard]:
  """The parts of files that make up a split.

  Args:
    files: (name, number of examples) of the files of each split, in order.
    split: TFDS split.
    of: names the corpus in errors.

  Raises:
    errors.InputError: There is no such split, or nothing in it.
  """
  described = {
    name: tfds.core.SplitInfo(
      name=name, shard_lengths=[count for _, count in own], num_bytes=0
    )
    for name, own in files.items()
  }
  shards = []
  for part in _slices(described, split, of):
    size = described[part.splitname].num_examples
    first = part.from_ or 0
    last = size if part.to is None else part.to
    before = 0
    for name, count in files[part.splitname]:
      start, stop = max(first - before, 0), min(last - before, count)
      if start < stop:
        shards.append(SourceShard(name, start, stop))
      before += count
  return _check_some(shards, split, of)


def _slices(splits: Mapping[str, Any], split: str, of: str) -> list[Any]:
  """TFDS's absolute slices of a split: splitname, from_ and to."""
  try:
    slices = tfds.core.splits.AbstractSplit.from_spec(split)
    absolute = slices.to_absolute(splits)
  except (ValueError, KeyError) as error:
    reason = f' ({error})' if 'slice' in str(error) else ''
    raise errors.InputError(
      f'{of} has no split {split!r}{reason}; it has '
      f'{", ".join(sorted(splits))}, each with an optional slice such as '
      "'test[:100]'"
    ) from error
  if any((x.from_ or 0) > x.to for x in absolute if x.to is not None):
    raise errors.InputError(
      f'split {split!r} of {of} has a slice that ends before it begins; choose '
      'another one'
    )
  return absolute


def _check_some(
  shards: list[SourceShard], split: str, of: str
) -> list[SourceShard]:
  if not shards:
    raise errors.InputError(
      f'split {split!r} of {of} holds no example; choose another slice'
    )
  return shards
