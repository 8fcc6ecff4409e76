"""An index with what it takes to ask it: its own task, basis and projector."""

from collections.abc import Callable
import dataclasses
import functools

import numpy as np

from influence_core import errors, types
from influence_core.projection.options import ProjectionOptions
from influence_core.scores import token_scores
from pipeline.bases import stored_basis
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.search import reprojection
from pipeline.storage import stored_objects
from pipeline.tasks import (
  checked_projector,
  example_batches,
  loaded_task,
  queries as query_lib,
)
from pipeline.tasks.reference import TaskReference

# Examples that a certified search projects again at a time, at least.
CERTIFIED_BATCH = 128


class IndexSession:
  """An opened index; each other part is loaded when it is needed.

  Attributes:
    index: the index.
    task: how its task is made.
  """

  def __init__(
    self,
    index: index_reader.Index,
    task: TaskReference | None,
    *,
    basis: str | None,
    options: ProjectionOptions,
  ):
    """Says how the index is asked.

    Args:
      index: opened.
      task: see `task_of`.
      basis: path; None for where it was when the index was made.
      options: how queries are projected.

    Raises:
      errors.InputError: It is not known which task it is.
    """
    self.index = index
    self.task = task_of(index, task)
    self._is_recorded = task is None
    self._basis = basis or index.manifest.provenance.basis
    self._options = options
    self._projectors: dict[bool, checked_projector.Projector] = {}

  @functools.cached_property
  def record(self) -> stored_basis.BasisRecord:
    """What is known of the basis."""
    return stored_basis.load_record(self._basis)

  @functools.cached_property
  def loaded(self) -> loaded_task.LoadedTask:
    """The task, checked to be that of the index.

    Raises:
      fingerprints.StaleFingerprintError: Names what differs.
      errors.InputError: Something of the task is missing or wrong.
    """
    loaded = self._load()
    manifest_lib.check_provenance(
      self.index.path,
      self.index.manifest.provenance,
      {**loaded.fingerprints, 'basis': self.record.fingerprint},
    )
    loaded.check_loss()
    return loaded

  def _load(self) -> loaded_task.LoadedTask:
    """The task, whichever it is."""
    probe = stored_basis.load_probe(self.record)
    task = self.task.selecting(self.record.config['parameter_paths'])
    try:
      return loaded_task.LoadedTask.unchecked(task, probe=probe)
    except errors.InputError as error:
      if not self._is_recorded:
        raise
      made_with = ' '.join(f'{k}={v}' for k, v in self.task.arguments.items())
      raise errors.InputError(
        f'{error} (the index at {self.index.path} was made with '
        f'{self.task.import_path} {made_with}; if that has moved, give --task '
        'and --task_arg)'
      ) from error

  @functools.cached_property
  def _measuring(self) -> loaded_task.LoadedTask:
    """The task with what is asked of queries in place of the loss."""
    loaded = self.loaded.measuring()
    if loaded is not self.loaded:
      loaded.check_loss()
    return loaded

  def project(
    self, examples: query_lib.Examples, *, at_least: int = 1
  ) -> tuple[example_batches.ExampleBatch, np.ndarray]:
    """Projects queries.

    Args:
      examples: raw, with their ids.
      at_least: examples that will be projected at a time later.

    Returns:
      The queries, and [num_queries, projection_dim] float32.

    Raises:
      errors.InputError: There are none, or one of them cannot be used.
    """
    batch = query_lib.preprocess(self.loaded, examples)
    projector = self._projector_for(
      max(len(batch.ids), at_least), of_queries=True
    )
    return batch, query_lib.project(batch, projector, self.record.query_ids)

  def exact_vectors(self) -> Callable[[np.ndarray], np.ndarray]:
    """Gives float32 projections of examples, by their position in the index."""
    projector = self._projector_for(CERTIFIED_BATCH)
    return reprojection.Reprojection(self.index, self.loaded, projector)

  @functools.cached_property
  def direction(self) -> Callable[[np.ndarray], types.SelectedParameters]:
    """Gives v with <v, g> = <weights, projection of g> for weights of columns.

    See `checked_projector.make_lift`.
    """
    # Loaded anew: a projector does not keep the arrays that it packs.
    basis = stored_basis.load(self.record)
    return checked_projector.make_lift(self.loaded, basis)

  @functools.cached_property
  def token_scores(self) -> token_scores.TokenScores:
    """Gives the scores of tokens along a direction."""
    losses = self.loaded.task.token_losses
    assert losses is not None  # Checked by `check_token_losses`.
    return token_scores.TokenScores(losses, self.loaded.params)

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


def task_of(
  index: index_reader.Index, given: TaskReference | None = None
) -> TaskReference:
  """The task of an index.

  Args:
    index: opened.
    given: None for the task that the index was made with. Of the same function,
      arguments that are not given are those of the index, such as the epochs
      that it is summed over.

  Raises:
    errors.InputError: None is given, and the index does not say.
  """
  made_with = index.manifest.provenance.task
  if not made_with:
    if given is None:
      raise errors.InputError(
        f'the index at {index.path} does not say which task it was made with; '
        'give --task and its --task_arg'
      )
    return given
  own = stored_objects.parse(TaskReference, made_with, index.path)
  if given is None:
    own.check_named_by(f'the index at {index.path}')
    return own
  if given.import_path != own.import_path:
    return given
  arguments = {**own.arguments, **given.arguments}
  return dataclasses.replace(given, arguments=arguments)
