"""The queries of a split: read, and projected."""

import numpy as np

from influence_core import errors
from influence_core.projection import projector as gradient_projection
from pipeline.tasks import loaded_task


def read(
  loaded: loaded_task.LoadedTask, split: str
) -> loaded_task.ExampleBatch:
  """All examples of a TFDS split.

  Raises:
    errors.InputError: There is no such split, or an example cannot be used.
  """
  corpus = loaded.task.corpus.with_split(split)
  corpus.check()
  batch = loaded.preprocess_batch(
    corpus.read_positions(range(corpus.num_examples))
  )
  if batch.rejected:
    raise _unusable(batch.rejected)
  return batch


def project(
  batch: loaded_task.ExampleBatch,
  projector: gradient_projection.GradientProjector,
  solved_ids: tuple[str, ...] = (),
) -> np.ndarray:
  """[num_queries, projection_dim] float32 projections.

  Args:
    batch: the queries.
    projector: of the basis.
    solved_ids: of the queries that the basis is made of, if it is: each is the
      only one that its own vector stands for.

  Raises:
    errors.InputError: A gradient is not finite, or the basis is not made of
      these queries.
  """
  if solved_ids:
    return _own_vectors(batch.ids, solved_ids)
  projections = np.asarray(projector.project(batch.features).projections)
  bad = ~np.isfinite(projections).all(axis=1)
  if bad.any():
    reason = 'its gradient is not finite'
    raise _unusable({batch.ids[x]: reason for x in np.flatnonzero(bad)})
  return projections


def _own_vectors(ids: list[str], solved_ids: tuple[str, ...]) -> np.ndarray:
  places = {solved: place for place, solved in enumerate(solved_ids)}
  for example_id in ids:
    if example_id not in places:
      raise errors.InputError(
        f'query {example_id} is not one of the {len(places)} that the basis '
        f'was made of, {solved_ids[0]} to {solved_ids[-1]}; run query-basis '
        'for it'
      )
  rows = np.zeros((len(ids), len(solved_ids)), np.float32)
  rows[np.arange(len(ids)), [places[example_id] for example_id in ids]] = 1
  return rows


def _unusable(rejected: dict[str, str]) -> errors.InputError:
  example_id, reason = next(iter(rejected.items()))
  return errors.InputError(
    f'{len(rejected)} queries cannot be used, the first is {example_id} '
    f'({reason}); leave them out of --query_split'
  )
