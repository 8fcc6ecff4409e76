"""Queries of indexes: opened once with tasks and bases, asked many times.

session = QuerySession('W/index')  # Or ['W/index', 'V/index'], an ensemble.
queries = session.project('test[:100]')
session.search(queries, SearchRequest(k=10))
session.ask('test[:100]')  # Both, as tables.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools

import numpy as np
import pyarrow as pa

from influence_core import errors, types
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from influence_core.scores.options import ScoreOptions
from pipeline.bases import stored_basis
from pipeline.search import (
  by_token as by_token_lib,
  certify as certify_lib,
  example_ids,
  index_session,
  retrieve,
  row_blocks,
  scan as scan_lib,
  tables,
)
from pipeline.search.answer import Answer
from pipeline.search.open_index import open_ensemble
from pipeline.search.projected_queries import ProjectedQueries
from pipeline.search.request import SearchRequest
from pipeline.tasks import loaded_task, queries as query_lib
from pipeline.tasks.query_choice import QueryChoice
from pipeline.tasks.reference import TaskReference

Scan = Callable[..., dict[object, scan_lib.Leading]]


class QuerySession:
  """Indexes of one corpus with what it takes to ask them.

  Attributes:
    index: what is searched: the ensemble of the indexes, of one alone, too.
    members: the session of each.
  """

  def __init__(
    self,
    index: str | Sequence[str],
    task: TaskReference | None = None,
    *,
    basis: str | Sequence[str] | None = None,
    scales: Sequence[float] | None = None,
    options: ProjectionOptions | None = None,
  ):
    """Opens the indexes.

    Args:
      index: path, local or gs://; or several, whose scores are added.
      task: the task; None for that which each index was made with. Of the same
        function, arguments that are not given are those of the index, such as
        where its model is, or the epochs that it is summed over.
      basis: path, of each index one; None for where they were when the indexes
        were made.
      scales: what the scores of each index are multiplied by; None for their
        mean.
      options: how queries are projected; None for the defaults.

    Raises:
      errors.InputError: Nothing is published there, indexes are of different
        corpora, or an option is wrong.
    """
    options = options or ProjectionOptions()
    gradient_projection.check_batch_size(options.batch_size)
    self.index = open_ensemble(_listed(index), scales=scales)
    bases = (
      [None] * len(self.index.members) if basis is None else _listed(basis)
    )
    if len(bases) != len(self.index.members):
      raise errors.InputError(
        f'{len(bases)} bases are given, expected one for each of '
        f'{len(self.index.members)} indexes'
      )
    self.members = [
      index_session.IndexSession(x.index, task, basis=path, options=options)
      for x, path in zip(self.index.members, bases, strict=True)
    ]

  @property
  def task(self) -> TaskReference:
    """How the task of the first index is made."""
    return self.members[0].task

  @property
  def records(self) -> list[stored_basis.BasisRecord]:
    """What is known of each basis."""
    return [member.record for member in self.members]

  @property
  def loaded(self) -> loaded_task.LoadedTask:
    """The task of the first index, checked to be that.

    Raises:
      fingerprints.StaleFingerprintError: Names what differs.
      errors.InputError: Something of the task is missing or wrong.
    """
    return self.members[0].loaded

  def check(self, request: SearchRequest) -> None:
    """Checks a request before anything is loaded for it.

    Raises:
      errors.InputError: It does not fit the index.
    """
    row_blocks.check_selection(self.index, request.selection)
    self.index.column_weights(request.options)
    if request.by_layer:
      self.index.check_layers('by_layer')
    if request.certify:
      self.index.check_examples('certify')
    if request.exclude_self:
      self.index.check_examples('exclude_self')

  def project(
    self, queries: query_lib.Queries, *, certify: bool = False
  ) -> ProjectedQueries:
    """Reads queries and projects them, for each index with its model and basis.

    Args:
      queries: split of the task's corpus such as 'test[:100]', raw examples as
        `preprocess` takes them, or where they come from.
      certify: whether searches will be certified, which project many examples
        at a time.

    Raises:
      errors.InputError: There are no such queries, or one cannot be used.
    """
    at_least = index_session.CERTIFIED_BATCH if certify else 1
    if not isinstance(queries, QueryChoice):
      return self._project(queries, at_least)
    if queries.query_ids:
      first = self.index.members[0].index
      ids = example_ids.of_names(first, queries.query_ids)
      queries = dataclasses.replace(queries, query_ids=ids)
    projected = self._project(queries, at_least).aggregated(queries.aggregate)
    if queries.contrast is None:
      return projected
    controls = QueryChoice(queries=queries.contrast)
    control = self._project(controls, at_least).aggregated(queries.aggregate)
    return projected.minus(control)

  def _project(
    self, queries: query_lib.Queries, at_least: int
  ) -> ProjectedQueries:
    # Read once: standard input comes to its end.
    corpus = self.loaded.task.corpus
    examples = list(query_lib.raw_examples(corpus, queries))
    parts = [x.project(examples, at_least=at_least) for x in self.members]
    batch, _ = parts[0]
    projections = np.concatenate([own for _, own in parts], axis=1)
    return ProjectedQueries(batch, tuple(batch.ids), projections, examples)

  def described(self, queries: ProjectedQueries) -> pa.Table:
    """What queries are and what the first model says of them.

    See `queries.described`.
    """
    return query_lib.described(self.loaded, queries.batch)

  def search(
    self,
    queries: ProjectedQueries,
    request: SearchRequest,
    *,
    scan: Scan = scan_lib.scan,
    progress: types.ProgressCallback = types.no_progress,
  ) -> dict[object, retrieve.Found]:
    """Proponents and opponents, by value of the column to group by.

    Args:
      queries: from `project`.
      request: what is wanted.
      scan: of this process, or of a Beam runner.
      progress: called with the number of examples scored.

    Raises:
      errors.InputError: The request does not fit the index.
    """
    selection, search = request.selection, retrieve.search
    if request.exclude_self:
      if not queries.is_single:
        raise errors.InputError(
          'exclude_self is for single queries, not for sets or differences of '
          'them; leave it, --aggregate or --contrast out'
        )
      selection = dataclasses.replace(selection, excluded_ids=queries.ids)
    if request.certify:
      search = functools.partial(
        certify_lib.search_certified, exact_vectors=self._exact_vectors()
      )
    return search(
      self.index,
      queries.projections,
      k=request.k,
      options=request.options,
      selection=selection,
      by_layer=request.by_layer,
      scan=scan,
      progress=progress,
    )

  def ask(
    self,
    queries: query_lib.Queries,
    request: SearchRequest | None = None,
    *,
    tokens: bool = False,
  ) -> Answer:
    """Projects queries and searches for them, in one call.

    Args:
      queries: see `project`.
      request: what is wanted; None for ten at each end.
      tokens: whether the share of each token is wanted, too.

    Raises:
      errors.InputError: A query cannot be used, or the request does not fit.
    """
    request = request or SearchRequest()
    self.check(request)
    projected = self.project(queries, certify=request.certify)
    found: Mapping[object, retrieve.Found] = self.search(projected, request)
    if tokens:
      found = self.by_token(projected, found, request.options)
    results = tables.influence_table(self.index, projected.ids, found)
    return Answer(self.described(projected), results)

  def by_token(
    self,
    queries: ProjectedQueries,
    found: Mapping[object, retrieve.Found],
    options: ScoreOptions,
    *,
    progress: types.ProgressCallback = types.no_progress,
  ) -> dict[object, retrieve.Found]:
    """What a search found, with the share of each token in each score.

    Examples are read again; queries have tokens where they are single ones.

    Args:
      queries: that were asked.
      found: from `search`.
      options: how scores were computed.
      progress: called with the number of steps.

    Raises:
      errors.InputError: The task has no tokens, the corpus has changed since,
        or an example cannot be used any more.
    """
    shares = by_token_lib.TokenShares(self.index, self.members, options)
    return shares.attach(queries, found, progress)

  def scores(
    self,
    queries: ProjectedQueries,
    options: ScoreOptions,
    *,
    progress: types.ProgressCallback = types.no_progress,
  ) -> tuple[np.ndarray, list[str]]:
    """Influence of every example, see `row_blocks.all_scores`."""
    return row_blocks.all_scores(
      self.index, queries.projections, options, progress=progress
    )

  def _exact_vectors(self) -> certify_lib.ExactVectors:
    """Projects examples again, for each index with its model and basis."""
    ways = [member.exact_vectors() for member in self.members]

    def vectors(positions: np.ndarray) -> np.ndarray:
      parts = [
        project(member.own(positions))
        for project, member in zip(ways, self.index.members, strict=True)
      ]
      return np.concatenate(parts, axis=1)

    return vectors


def _listed(paths: str | Sequence[str]) -> list[str]:
  return [paths] if isinstance(paths, str) else list(paths)


def open_compared(
  indexes: Sequence[Sequence[str]],
  task: TaskReference | None,
  scales: Sequence[float] | None,
) -> list[QuerySession]:
  """Sessions of indexes, and of ensembles of them, that are compared.

  Args:
    indexes: paths of each.
    task: see `QuerySession`.
    scales: of every ensemble; an index alone has none.

  Raises:
    errors.InputError: Nothing is published there, or scales do not fit.
  """
  if scales and all(len(paths) == 1 for paths in indexes):
    raise errors.InputError(
      f'scale is {scales[0]}, but no ensemble is compared; give several paths '
      'after one --index, or no --scale'
    )
  return [
    QuerySession(paths, task, scales=scales if len(paths) > 1 else None)
    for paths in indexes
  ]
