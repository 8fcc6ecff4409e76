"""The manifest: the one file that says what an index holds.

`manifest-<generation>.json` is immutable and published last, created only if
absent. Readers trust it alone: a shard that no manifest names does not exist.
"""

from collections.abc import Mapping
import dataclasses
import functools
import re
from typing import Any

import numpy as np

from influence_core import errors
from influence_core.subspaces.columns import LayerColumns
from pipeline.index import format as index_format, shard_files, vector_codec
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  stored_objects,
)

# Of a .npy file as this program writes it; 128 in fact.
_MAX_HEADER_BYTES = 4096
_LARGEST = float(np.finfo(np.float32).max)
_NAME = re.compile(r'manifest-(\d{6})\.json')


@dataclasses.dataclass(frozen=True)
class Provenance:
  """What an index was made from.

  Attributes:
    task: import path and arguments of the task.
    basis: absolute path of the basis.
    eigenvalues: of the basis, so that scores need no other file.
    fingerprints: by field: parameters, selected_paths, loss_reduction,
      preprocessing, task_version, basis, corpus; and basis_dtype and dtype,
      those of the basis on the devices and of stored vectors, as they are; and
      `rows`, where they are tokens.
    layers: what the columns stand for, of a basis of layers; else empty.
    query_ids: queries that the columns of vectors were solved for; empty where
      they stand for eigenvectors.
    mean_curvature: of all parameters, of a basis of eigenpairs: what relative
      damping is relative to; None where it is not known.
  """

  task: dict[str, Any]
  basis: str
  eigenvalues: tuple[float, ...]
  fingerprints: Mapping[str, str]
  query_ids: tuple[str, ...] = ()
  layers: tuple[LayerColumns, ...] = ()
  mean_curvature: float | None = None

  def __post_init__(self):
    curvatures = [*self.eigenvalues, *(x.mean_curvature for x in self.layers)]
    if self.mean_curvature is not None:
      curvatures.append(self.mean_curvature)
    for value in curvatures:
      if not abs(value) <= _LARGEST:  # Neither is one that is not a number.
        raise ValueError(f'{value} is no curvature, expected a finite float32')

  @property
  def projection_dim(self) -> int:
    return len(self.eigenvalues)

  @functools.cached_property
  def codec(self) -> vector_codec.VectorCodec:
    """How vectors are stored."""
    return vector_codec.VectorCodec(
      self.fingerprints.get('dtype', ''),
      np.asarray(self.eigenvalues),
      self.layers,
    )


@dataclasses.dataclass(frozen=True)
class Manifest:
  """One published generation of an index.

  Attributes:
    generation: 1, 2, ...
    provenance: what the index was made from.
    shards: in the order of the corpus.
    rejected: the list of examples left out, None if there are none.
  """

  generation: int
  provenance: Provenance
  shards: tuple[index_format.Shard, ...]
  rejected: checked_files.StoredFile | None = None

  def __post_init__(self):
    if self.rejected:
      checked_files.check_file(self.rejected)

  @property
  def num_examples(self) -> int:
    """Number of rows, rejected examples not counted."""
    return sum(shard.num_written for shard in self.shards)

  @property
  def num_rejected(self) -> int:
    return sum(shard.num_rejected for shard in self.shards)

  def to_json(self) -> dict[str, Any]:
    return {
      'schema_version': index_format.SCHEMA_VERSION,
      'generation': self.generation,
      'num_read': sum(shard.range.num_examples for shard in self.shards),
      'num_written': self.num_examples,
      'num_rejected': self.num_rejected,
      'provenance': dataclasses.asdict(self.provenance),
      'shards': [shard.to_json() for shard in self.shards],
      'rejected': self.rejected and dataclasses.asdict(self.rejected),
    }


def file_name(generation: int) -> str:
  return f'manifest-{generation:06d}.json'


def path_of(index: str, generation: int) -> str:
  return storage.join(index, file_name(generation))


def generations(index: str) -> list[int]:
  """Published generations, oldest first."""
  matches = map(_NAME.fullmatch, storage.list_names(index))
  return sorted(int(match[1]) for match in matches if match)


def load(index: str, generation: int | None = None) -> Manifest:
  """A generation, by default the newest.

  Raises:
    errors.InputError: Nothing, or no such generation, is published at `index`.
    storage.DamagedFileError: The manifest is damaged or of another version.
  """
  published = generations(index)
  if not published:
    raise errors.InputError(
      f'no index at {index}: it has no manifest; run project first, or again '
      'if it was interrupted'
    )
  if generation is None:
    generation = published[-1]
  if generation not in published:
    raise errors.InputError(
      f'the index at {index} has no generation {generation}; it has '
      f'{", ".join(map(str, published))}'
    )
  path = path_of(index, generation)
  try:
    content = checked_files.read_json(path)
  except storage.DamagedFileError as error:
    raise storage.DamagedFileError(
      f'{error}; delete it and run project again, intact shards are reused'
    ) from error
  version = stored_objects.member(content, 'schema_version', path)
  if version != index_format.SCHEMA_VERSION:
    raise errors.InputError(
      f'{path} has schema version {version}, expected '
      f'{index_format.SCHEMA_VERSION}; project the corpus again'
    )
  manifest = stored_objects.parse(Manifest, content, path)
  _check_sizes(manifest, path)
  return manifest


def _check_sizes(manifest: Manifest, path: str) -> None:
  """Refuses more rows than their files can hold, before room is made for them.

  Raises:
    storage.DamagedFileError: Names the file.
  """
  codec = manifest.provenance.codec
  for shard in manifest.shards:
    header = shard_files.vectors_header_bytes(
      shard.vectors.num_bytes, shard.num_written, codec
    )
    if not 0 < header <= _MAX_HEADER_BYTES:
      raise storage.DamagedFileError(
        f'{path} says that {shard.vectors.name} has {shard.num_written} rows '
        f'in {shard.vectors.num_bytes} bytes, which so many do not take'
      )


def publish(
  index: str,
  provenance: Provenance,
  shards: tuple[index_format.Shard, ...],
  rejected: checked_files.StoredFile | None = None,
) -> Manifest:
  """Publishes a generation, unless the newest one says the same already.

  Of two runs that publish at once, the second finds its number taken, compares
  and adopts the first one's if it is equal.
  """
  while True:
    published = generations(index)
    if published:
      newest = load(index)
      if (newest.provenance, newest.shards) == (provenance, shards):
        return newest
    generation = published[-1] + 1 if published else 1
    manifest = Manifest(generation, provenance, shards, rejected)
    if storage.create_exclusive(
      path_of(index, generation), checked_files.encode_json(manifest.to_json())
    ):
      return manifest


def check_provenance(
  index: str, provenance: Provenance, expected: Mapping[str, str]
) -> None:
  """Refuses an index of another model or basis.

  Raises:
    fingerprints.StaleFingerprintError: Names the field that differs.
  """
  fingerprints.check_equal(
    provenance.fingerprints,
    expected,
    what=f'the index at {index}',
    next_step='use the task and basis it was made with, or project again',
  )
