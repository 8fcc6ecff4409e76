"""Queries of an index: opened once with its task and basis, asked many times.

session = QuerySession('W/index')
queries = session.project('test[:100]')
session.search(queries, SearchRequest(k=10))
"""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np
import pyarrow as pa

from influence_core import errors, types
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from influence_core.scores.options import ScoreOptions
from pipeline.bases import stored_basis
from pipeline.index import manifest as manifest_lib
from pipeline.search import (
  certify as certify_lib,
  example_ids,
  reprojection,
  retrieve,
  row_blocks,
  scan as scan_lib,
)
from pipeline.search.open_index import open_index
from pipeline.search.projected_queries import ProjectedQueries
from pipeline.search.request import SearchRequest
from pipeline.tasks import (
  checked_projector,
  example_batches,
  loaded_task,
  queries as query_lib,
)
from pipeline.tasks.query_choice import QueryChoice
from pipeline.tasks.reference import TaskReference

# Examples that a certified search projects again at a time, at least.
_CERTIFIED_BATCH = 128

Scan = Callable[..., dict[object, scan_lib.Leading]]


class QuerySession:
  """An index with what it takes to ask it; each part is loaded when needed.

  Attributes:
    index: the opened index.
  """

  def __init__(
    self,
    index: str,
    task: TaskReference | None = None,
    *,
    basis: str | None = None,
    options: ProjectionOptions | None = None,
  ):
    """Opens the index.

    Args:
      index: path, local or gs://.
      task: the task; None for that which the index was made with. Of the same
        function, arguments that are not given are those of the index, such as
        the epochs that it is summed over.
      basis: path; None for where it was when the index was made.
      options: how queries are projected; None for the defaults.

    Raises:
      errors.InputError: Nothing is published there, or an option is wrong.
    """
    self._options = options or ProjectionOptions()
    gradient_projection.check_batch_size(self._options.batch_size)
    self.index = open_index(index)
    made_with = TaskReference(**self.index.manifest.provenance.task)
    self._task = task or made_with
    if self._task.import_path == made_with.import_path:
      arguments = {**made_with.arguments, **self._task.arguments}
      self._task = dataclasses.replace(self._task, arguments=arguments)
    self._basis = basis
    self._projectors: dict[bool, checked_projector.Projector] = {}

  @functools.cached_property
  def record(self) -> stored_basis.BasisRecord:
    """What is known of the basis."""
    path = self._basis or self.index.manifest.provenance.basis
    return stored_basis.load_record(path)

  @functools.cached_property
  def loaded(self) -> loaded_task.LoadedTask:
    """The task, checked to be that of the index.

    Raises:
      fingerprints.StaleFingerprintError: Names what differs.
      errors.InputError: Something of the task is missing or wrong.
    """
    loaded = loaded_task.LoadedTask.unchecked(
      self._task.selecting(self.record.config['parameter_paths']),
      probe=stored_basis.load_probe(self.record),
    )
    manifest_lib.check_provenance(
      self.index.path,
      self.index.manifest.provenance,
      {**loaded.fingerprints, 'basis': self.record.fingerprint},
    )
    loaded.check_loss()
    return loaded

  @functools.cached_property
  def _measuring(self) -> loaded_task.LoadedTask:
    """The task with what is asked of queries in place of the loss."""
    loaded = self.loaded.measuring()
    if loaded is not self.loaded:
      loaded.check_loss()
    return loaded

  def check(self, request: SearchRequest) -> None:
    """Checks a request before anything is loaded for it.

    Raises:
      errors.InputError: It does not fit the index.
    """
    row_blocks.check_selection(self.index, request.selection)
    self.index.column_weights(request.options)
    if request.by_layer:
      self.index.check_layers('by_layer')

  def project(
    self, queries: query_lib.Queries, *, certify: bool = False
  ) -> ProjectedQueries:
    """Reads and projects queries.

    Args:
      queries: split of the task's corpus such as 'test[:100]', raw examples as
        `preprocess` takes them, or where they come from.
      certify: whether searches will be certified, which project many examples
        at a time.

    Raises:
      errors.InputError: There are no such queries, or one cannot be used.
    """
    at_least = _CERTIFIED_BATCH if certify else 1
    if not isinstance(queries, QueryChoice):
      return self._project(query_lib.read(self.loaded, queries), at_least)
    if queries.query_ids:
      ids = example_ids.of_names(self.index, queries.query_ids)
      queries = dataclasses.replace(queries, query_ids=ids)
    batch = query_lib.read(self.loaded, queries)
    projected = self._project(batch, at_least).aggregated(queries.aggregate)
    if queries.contrast is None:
      return projected
    controls = query_lib.preprocess(
      self.loaded, query_lib.read_file(queries.contrast)
    )
    control = self._project(controls, at_least).aggregated(queries.aggregate)
    return projected.minus(control)

  def described(self, queries: ProjectedQueries) -> pa.Table:
    """What queries are and what the model says, see `queries.described`."""
    return query_lib.described(self.loaded, queries.batch)

  def _project(
    self, batch: example_batches.ExampleBatch, at_least: int
  ) -> ProjectedQueries:
    count = max(len(batch.ids), at_least)
    projector = self._projector_for(count, of_queries=True)
    projections = query_lib.project(batch, projector, self.record.query_ids)
    return ProjectedQueries(batch, tuple(batch.ids), projections)

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
      projector = self._projector_for(_CERTIFIED_BATCH)
      search = functools.partial(
        certify_lib.search_certified,
        exact_vectors=reprojection.Reprojection(
          self.index, self.loaded, projector
        ),
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

  def _projector_for(
    self, num_examples: int, *, of_queries: bool = False
  ) -> checked_projector.Projector:
    """Compiled once, for as many examples as the first call has."""
    loaded = self._measuring if of_queries else self.loaded
    is_other = loaded is not self.loaded
    if is_other not in self._projectors:
      self._projectors[is_other] = checked_projector.make_projector(
        loaded,
        stored_basis.load(self.record),
        self._options,
        num_examples=num_examples,
      )
    return self._projectors[is_other]
