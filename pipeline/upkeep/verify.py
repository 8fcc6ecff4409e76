"""Checks every file of an index against its manifest."""

from collections.abc import Iterator
import itertools

import numpy as np

from influence_core import types
from pipeline.corpora.corpus import id_of
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
)
from pipeline.storage import checked_files, files as storage


def find_damage(
  index: index_reader.Index,
  *,
  progress: types.ProgressCallback = types.no_progress,
) -> Iterator[str]:
  """One line for each thing that is wrong; nothing for a sound index.

  Reads every byte: sizes, checksums, formats, row counts, finite values, ids
  that occur twice, and ranges that overlap.
  """
  manifest = index.manifest
  yield from _overlapping_ranges(manifest)
  num_done = 0
  for shard in manifest.shards:
    yield from _shard_damage(index, shard)
    num_done += shard.num_written
    progress(num_done, manifest.num_examples)
  yield from _rejected_damage(index)


def _shard_damage(
  index: index_reader.Index, shard: index_format.Shard
) -> Iterator[str]:
  try:
    content = index_format.read_shard(index.path, shard, index.codec)
  except storage.DamagedFileError as error:
    yield str(error)
    return
  expected = len(index.eigenvalues)
  if content.vectors.shape[1] != expected:
    yield (
      f'{shard.vectors.name} has {content.vectors.shape[1]} coordinates, '
      f'expected {expected}'
    )
  if not np.isfinite(content.vectors).all():
    yield f'{shard.vectors.name} has values that are not finite'
  ids = content.rows['id'].to_pylist() + list(content.rejected)
  # Ranges do not overlap, so ids can only repeat inside a shard.
  expected_ids = {
    id_of(shard.range.source_shard, record)
    for record in range(shard.range.start, shard.range.stop)
  }
  if index.has_token_rows:  # An example has several rows, one of each token.
    ids = [*dict.fromkeys(ids)]
  if len(ids) != len(expected_ids) or set(ids) != expected_ids:
    yield f'{shard.rows.name} does not hold each example of its range once'


def _overlapping_ranges(manifest: manifest_lib.Manifest) -> Iterator[str]:
  ranges = sorted(
    (shard.range for shard in manifest.shards),
    key=lambda item: (item.source_shard, item.start),
  )
  for before, after in itertools.pairwise(ranges):
    if before.source_shard == after.source_shard and before.stop > after.start:
      yield f'ranges {before.stem} and {after.stem} overlap'


def _rejected_damage(index: index_reader.Index) -> Iterator[str]:
  file = index.manifest.rejected
  if file is None:
    return
  try:
    checked_files.read_checked(storage.join(index.path, file.name), file)
  except storage.DamagedFileError as error:
    yield str(error)
