"""A published generation of an index, opened for reading.

`pipeline.open_index` gives one that can be searched too.
"""

from collections.abc import Iterator, Sequence
import functools
import json
import re

import numpy as np
import pyarrow as pa

from influence_core import errors, types
from influence_core.scores import influence as influence_scores
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces import columns as columns_lib
from pipeline.index import (
  block_reader,
  format as index_format,
  manifest as manifest_lib,
  members as members_lib,
  vector_codec,
)
from pipeline.storage import files as storage


class Index:
  """A generation; later ones that are published do not change it.

  Examples are numbered by position, in the order of the corpus.

  Attributes:
    path: absolute path.
    manifest: what the generation consists of.
  """

  def __init__(self, path: str, generation: int | None = None):
    """Opens a generation of the index at `path`, by default the newest.

    Raises:
      errors.InputError: Nothing, or no such generation, is published there.
      storage.DamagedFileError: The manifest is damaged.
    """
    self.path = storage.absolute(path)
    self.manifest = manifest_lib.load(self.path, generation)

  @property
  def num_examples(self) -> int:
    return self.manifest.num_examples

  @property
  def generation(self) -> int:
    return self.manifest.generation

  @property
  def members(self) -> tuple[members_lib.Member, ...]:
    """The index itself, an ensemble of one."""
    return (members_lib.Member(self),)

  @property
  def projection_dim(self) -> int:
    return self.manifest.provenance.projection_dim

  @property
  def eigenvalues(self) -> np.ndarray:
    """[projection_dim] float64."""
    return np.asarray(self.manifest.provenance.eigenvalues)

  @property
  def layers(self) -> tuple[columns_lib.LayerColumns, ...]:
    """What the columns stand for, of a basis of layers; else empty."""
    return self.manifest.provenance.layers

  def column_weights(self, options: ScoreOptions) -> np.ndarray:
    """[projection_dim] float64, see `scores.influence.inverse_eigenvalues`.

    Raises:
      errors.InputError: The options do not fit the basis.
    """
    chosen = None
    if options.layers is not None:
      counts = [layer.count for layer in self.layers]
      chosen = np.repeat(self._matches(options.layers), counts)
    return influence_scores.inverse_eigenvalues(
      self.eigenvalues, options, self._mean_curvatures, chosen
    )

  def weight_queries(
    self, query_projections: np.ndarray, options: ScoreOptions
  ) -> np.ndarray:
    """[num_queries, projection_dim] float32, see `scores.influence`.

    Raises:
      errors.InputError: The options do not fit the basis.
    """
    return influence_scores.weight_queries(
      query_projections, self.column_weights(options), options.normalization
    )

  @property
  def _mean_curvatures(self) -> np.ndarray | float | None:
    """Of the columns, see `scores.influence.inverse_eigenvalues`."""
    if not self.layers:
      return self.manifest.provenance.mean_curvature
    counts = [layer.count for layer in self.layers]
    means = [layer.mean_curvature for layer in self.layers]
    return np.repeat(means, counts)

  @property
  def has_token_rows(self) -> bool:
    """Whether rows are tokens of examples, see `project --per_token`."""
    rows = self.manifest.provenance.fingerprints.get('rows')
    return rows == index_format.TOKEN_ROWS

  def check_examples(self, what: str) -> None:
    """Refuses what only rows of whole examples can give.

    Args:
      what: is asked of the index.

    Raises:
      errors.InputError: Its rows are tokens.
    """
    if self.has_token_rows:
      raise errors.InputError(
        f'the index at {self.path} has a row for each token; {what} needs one '
        'of whole examples, projected without --per_token'
      )

  def check_layers(self, what: str) -> None:
    """Refuses what only a basis of layers can give.

    Args:
      what: is asked of the index.

    Raises:
      errors.InputError: Its columns belong to no layers.
    """
    if not self.layers:
      raise errors.InputError(
        f'the index at {self.path} knows no layers, its '
        f'{len(self.eigenvalues)} columns are of all parameters; {what} needs '
        'one with a basis of fit-basis --method kronecker'
      )

  def _matches(self, pattern: str) -> list[bool]:
    """Which layers a regular expression is found in the names of."""
    self.check_layers(f'layers {pattern!r}')
    names = [layer.name for layer in self.layers]
    matches = [re.search(pattern, name) is not None for name in names]
    if not any(matches):
      raise errors.InputError(
        f'layers is {pattern!r}, which matches none of the layers of the index '
        f'at {self.path}: {errors.abridged(names)}'
      )
    return matches

  @property
  def codec(self) -> vector_codec.VectorCodec:
    """How vectors are stored."""
    return self.manifest.provenance.codec

  @functools.cached_property
  def schema(self) -> pa.Schema:
    """Columns of the rows.

    Of a basis of layers, the metadata say under 'layers', as JSON, which
    columns of the projections each layer has: name, start, count,
    mean_curvature and captured.
    """
    # A shard whose examples were all rejected does not know the task's own.
    shard = max(self.manifest.shards, key=lambda shard: shard.num_written > 0)
    table = index_format.read_rows(self.path, shard)
    return table.schema.with_metadata(self._metadata)

  @property
  def _metadata(self) -> dict[str, str] | None:
    if not self.layers:
      return None
    return {'layers': json.dumps(columns_lib.to_json(self.layers))}

  def check_eigenvectors(self, what: str) -> None:
    """Refuses what has no meaning for vectors of single queries.

    Args:
      what: is asked of the index.

    Raises:
      errors.InputError: Its columns stand for queries.
    """
    if count := len(self.manifest.provenance.query_ids):
      raise errors.InputError(
        f'the index at {self.path} knows its influence on {count} queries '
        f'alone; {what} needs one with a basis of fit-basis or random-basis'
      )

  def check_column(self, name: str) -> None:
    """Raises errors.InputError when the rows have no such column."""
    if name not in self.schema.names:
      raise errors.InputError(
        f'the index at {self.path} has no column {name!r}; it has '
        f'{", ".join(self.schema.names)}'
      )

  def read_blocks(
    self,
    *,
    columns: Sequence[str] = (),
    numbers: Sequence[int] | None = None,
    progress: types.ProgressCallback = types.no_progress,
  ) -> Iterator[block_reader.ReadBlock]:
    """Vectors, and columns of the rows, block by block in order.

    See `block_reader.read_blocks`.
    """
    return block_reader.read_blocks(
      self.path,
      self.manifest,
      columns=columns,
      numbers=numbers,
      progress=progress,
    )

  def rows(
    self,
    positions: Sequence[int] | np.ndarray | None = None,
    columns: Sequence[str] | None = None,
  ) -> pa.Table:
    """Rows (id, loss, squared_gradient_norm, the task's columns).

    Their metadata are those of `schema`.

    Args:
      positions: of the examples wanted, in any order; None for all in order.
      columns: None for all.

    Raises:
      errors.InputError: There is no such position.
    """
    shards = self.manifest.shards
    if positions is None:
      tables = [index_format.read_rows(self.path, x, columns) for x in shards]
      found = pa.concat_tables(tables, promote_options='permissive')
      return found.replace_schema_metadata(self._metadata)
    wanted = self._checked(positions)
    empty = self.schema.empty_table()
    tables = [empty if columns is None else empty.select(list(columns))]
    order = np.argsort(wanted, kind='stable')
    for shard, mine in self._by_shard(wanted[order]):
      table = index_format.read_rows(self.path, shard, columns)
      tables.append(table.take(pa.array(mine)))
    found = pa.concat_tables(tables, promote_options='permissive')
    found = found.take(pa.array(np.argsort(order, kind='stable')))
    return found.replace_schema_metadata(self._metadata)

  def vectors(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """[len(positions), projection_dim] float32 projections of examples."""
    wanted = self._checked(positions)
    found = np.empty((len(wanted), len(self.eigenvalues)), np.float32)
    order = np.argsort(wanted, kind='stable')
    done = 0
    for shard, mine in self._by_shard(wanted[order]):
      vectors = index_format.read_vectors(self.path, shard, self.codec)
      found[order[done : done + len(mine)]] = vectors[mine]
      done += len(mine)
    return found

  def shards_of(
    self, positions: Sequence[int] | np.ndarray
  ) -> list[index_format.Shard]:
    """Shards that hold some examples."""
    wanted = np.sort(self._checked(positions))
    return [shard for shard, _ in self._by_shard(wanted)]

  def _checked(self, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    wanted = np.asarray(positions, np.int64).reshape(-1)
    if wanted.size and not 0 <= wanted.min() <= wanted.max() < len(self):
      raise errors.InputError(
        f'positions are {wanted.min()} to {wanted.max()}, expected 0 to '
        f'{len(self) - 1}'
      )
    return wanted

  def _by_shard(
    self, ordered: np.ndarray
  ) -> Iterator[tuple[index_format.Shard, np.ndarray]]:
    """Shards that have some of the positions, with places in the shard."""
    shards = self.manifest.shards
    starts = np.cumsum([0, *(shard.num_written for shard in shards)])
    owners = np.searchsorted(starts, ordered, side='right') - 1
    for owner in np.unique(owners).tolist():
      yield shards[owner], ordered[owners == owner] - starts[owner]

  def __len__(self) -> int:
    return self.num_examples

  def __repr__(self) -> str:
    return (
      f'<{type(self).__name__} {self.path}, generation {self.generation}: '
      f'{self.num_examples:,} examples, {len(self.eigenvalues)} projections '
      f'each, columns {", ".join(self.schema.names)}>'
    )
