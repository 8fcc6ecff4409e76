"""Queries ready to be asked, alone or put together.

Influence is linear in the projection of the query: that on a whole set is found
with the sum of their projections, and that on a difference with the difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from influence_core import errors
from pipeline.tasks import example_batches, example_form
from pipeline.tasks.query_choice import Aggregate


class ProjectedQueries(NamedTuple):
  """Queries, ready to be asked.

  Attributes:
    batch: the examples.
    ids: of what is asked, the queries themselves or sets of them.
    projections: [len(ids), projection_dim] float32, unscaled.
    examples: the queries as they were read, each with its id.
  """

  batch: example_batches.ExampleBatch
  ids: tuple[str, ...]
  projections: np.ndarray
  examples: Sequence[tuple[str, example_form.AnyExample]] = ()

  @property
  def is_single(self) -> bool:
    """Whether each is the projection of one example."""
    return list(self.ids) == self.batch.ids

  def aggregated(self, how: Aggregate) -> 'ProjectedQueries':
    """All of them as one, by mean or sum; themselves for 'none'."""
    if how == 'none':
      return self
    count = len(self.ids)
    total = self.projections.sum(axis=0, keepdims=True, dtype=np.float64)
    combined = total / count if how == 'mean' else total
    return self._replace(
      ids=(f'{how} of {count} queries',),
      projections=combined.astype(np.float32),
    )

  def minus(self, controls: 'ProjectedQueries') -> 'ProjectedQueries':
    """The difference to controls, one for all or one for each.

    Raises:
      errors.InputError: There is another number of controls.
    """
    count = len(controls.ids)
    if count not in (1, len(self.ids)):
      raise errors.InputError(
        f'contrast has {count} controls, expected 1 or {len(self.ids)}, as '
        'there are queries; or give --aggregate mean'
      )
    names = np.broadcast_to(controls.ids, len(self.ids))
    return self._replace(
      ids=tuple(f'{a} - {b}' for a, b in zip(self.ids, names, strict=True)),
      projections=self.projections - controls.projections,
    )
