"""Examples of an index read again, to be looked at."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from pipeline.corpora.corpus import UndecodableExample
from pipeline.search import index_session, reprojection
from pipeline.search.projected_queries import ProjectedQueries
from pipeline.tasks import display, queries as query_lib

# Examples that the model is asked about at a time.
_ASKED_TOGETHER = 64


class Shown(NamedTuple):
  """An example as people see it.

  Attributes:
    pieces: images, texts and numbers.
    said: what the model says of it: the task's predictions, by name.
  """

  pieces: list[display.Piece]
  said: Mapping[str, Any]


def read(
  session: index_session.IndexSession, positions: np.ndarray, otherwise: str
) -> dict[str, Shown]:
  """Reads examples again.

  Args:
    session: of the index.
    positions: of the examples in it.
    otherwise: what helps where the corpus has changed, besides projecting it.

  Returns:
    What is seen of each, by id.

  Raises:
    errors.InputError: The corpus has changed since, or a function of the task
      fails.
  """
  loaded = session.loaded
  task = loaded.task
  reprojection.check_sources(session.index, loaded, positions, otherwise)
  ids = session.index.rows(positions, ['id'])['id'].to_pylist()
  examples = [
    (example_id, raw)
    for example_id, raw in task.corpus.read_ids(ids)
    if not isinstance(raw, UndecodableExample)
  ]
  said = dict(_said(session, examples) if task.predict else ())
  return {
    example_id: Shown(
      display.pieces_of(task, example_id, raw), said.get(example_id, {})
    )
    for example_id, raw in examples
  }


def of_queries(
  session: index_session.IndexSession, queries: ProjectedQueries
) -> dict[str, Shown]:
  """The same of queries, by id; nothing of sets or differences of them."""
  if not queries.is_single:
    return {}
  return {
    query_id: Shown(display.pieces_of(session.loaded.task, query_id, raw), {})
    for query_id, raw in queries.examples
    if not isinstance(raw, UndecodableExample)
  }


def _said(
  session: index_session.IndexSession, examples: query_lib.Examples
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Predictions of the model, by id."""
  for batch in session.loaded.preprocess_by_length(examples, _ASKED_TOGETHER):
    if batch.ids:
      known = {'id', 'loss', 'measurement', *batch.columns}
      for row in query_lib.described(session.loaded, batch).to_pylist():
        yield row['id'], {k: v for k, v in row.items() if k not in known}
