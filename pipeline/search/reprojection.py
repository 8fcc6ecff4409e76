"""Projects examples of an index again, from the corpus it was made of."""

import numpy as np

from influence_core import errors
from pipeline.index import format as index_format, reader as index_reader
from pipeline.tasks import checked_projector, loaded_task


class Reprojection:
  """float32 projections of examples by their position in an index."""

  def __init__(
    self,
    index: index_reader.Index,
    loaded: loaded_task.LoadedTask,
    projector: checked_projector.Projector,
  ):
    """Ties an index to its task.

    Args:
      index: opened index.
      loaded: the task it was made with.
      projector: of the basis it was made with.

    Raises:
      errors.InputError: The projector uses the basis in another dtype.
    """
    expected = index.manifest.provenance.fingerprints['basis_dtype']
    found = projector.options.basis_dtype
    if found != expected:
      raise errors.InputError(
        f'basis_dtype is {found}, but the index was projected with {expected}; '
        f'give --basis_dtype {expected}'
      )
    self._index = index
    self._loaded = loaded
    self._projector = projector

  def __call__(self, positions: np.ndarray) -> np.ndarray:
    """[len(positions), projection_dim] float32.

    Raises:
      errors.InputError: The corpus has changed since, or an example cannot be
        used any more.
    """
    check_sources(self._index, self._loaded, positions, 'leave --certify out')
    ids = self._index.rows(positions, ['id'])['id'].to_pylist()
    found = np.empty((len(ids), len(self._index.eigenvalues)), np.float32)
    places = {example_id: place for place, example_id in enumerate(ids)}
    for batch in self._loaded.preprocess_by_length(
      self._loaded.task.corpus.read_ids(ids), self._projector.call_size
    ):
      if batch.rejected:
        example_id, reason = next(iter(batch.rejected.items()))
        raise errors.InputError(
          f'{example_id} cannot be projected again ({reason}); correct that or '
          'leave --certify out'
        )
      projected = self._projector.project(batch.features)
      own = [places[example_id] for example_id in batch.ids]
      found[own] = projected.projections
    return found


def check_sources(
  index: index_reader.Index,
  loaded: loaded_task.LoadedTask,
  positions: np.ndarray,
  otherwise: str,
) -> None:
  """Compares the files that examples come from with those of an index.

  Args:
    index: opened index.
    loaded: the task it was made with.
    positions: of the examples.
    otherwise: what helps besides projecting again.

  Raises:
    errors.InputError: A file has changed since.
  """
  shared = {
    name: value
    for name, value in index.manifest.provenance.fingerprints.items()
    if name != 'corpus'
  }
  for shard in index.shards_of(positions):
    source = shard.range.source_shard
    found = index_format.range_fingerprint(
      loaded.task.corpus.shard_fingerprint(source), shared
    )
    if found != shard.range.fingerprint:
      raise errors.InputError(
        f'source shard {source} changed after the index was made; run '
        f'project again or {otherwise}'
      )
