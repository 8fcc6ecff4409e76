"""Queries ready to be asked, alone or put together.

Influence is linear in the projection of the query: that on a whole set is found
with the sum of their projections, and that on a difference with the difference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
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

  def distinct(self) -> tuple['ProjectedQueries', dict[str, str]]:
    """Each query once, and the query that each other one is a copy of, by id.

    Copies have the same features, such as a text that was given twice. Sets of
    queries are left as they are.
    """
    if not self.is_single:
      return self, {}
    firsts: dict[tuple[bytes, ...], int] = {}
    copies, places = {}, []
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(self.batch.features)]
    for number, query_id in enumerate(self.ids):
      content = tuple(leaf[number].tobytes() for leaf in leaves)
      first = firsts.setdefault(content, number)
      if first == number:
        places.append(number)
      else:
        copies[query_id] = self.ids[first]
    kept = ProjectedQueries(
      example_batches.take_examples(self.batch, np.array(places)),
      tuple(self.ids[place] for place in places),
      self.projections[places],
      [self.examples[place] for place in places],
    )
    return kept, copies

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
