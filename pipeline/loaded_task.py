"""A task made ready to compute: parameters in memory, checked, fingerprinted.

Used the same way by the basis job, by every projecting worker and by queries,
so that all three agree on what a fingerprint covers.
"""

from collections.abc import Iterable
import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import (
  errors,
  parameter_layout,
  parameter_selection,
  types,
)
from pipeline import corpus as corpus_lib
from pipeline import fingerprints, shard_files
from pipeline import task as task_lib

# Examples preprocessed and run through the loss before any work starts.
_NUM_CHECKED_EXAMPLES = 4


class ExampleBatch(NamedTuple):
  """Preprocessed examples, and those that could not be used.

  Attributes:
    ids: of the usable examples.
    features: pytree of [num_examples, ...] arrays, None if none is usable.
    columns: row columns of the usable examples by name.
    rejected: reason by id.
  """

  ids: list[str]
  features: types.Features
  columns: dict[str, list[Any]]
  rejected: dict[str, str]


@dataclasses.dataclass(frozen=True)
class LoadedTask:
  """A task with its parameters.

  Attributes:
    task: the task.
    params: pytree of arrays.
    selection: parameter paths given instead of the task's own, if any.
    probe: raw examples that preprocessing is known by, those of a basis; None
      for the first of the corpus.
  """

  task: task_lib.Task
  params: types.Params
  selection: tuple[str, ...] | None = None
  probe: tuple[corpus_lib.RawExample, ...] | None = None

  @classmethod
  def load(
    cls,
    reference: task_lib.TaskReference,
    *,
    probe: tuple[corpus_lib.RawExample, ...] | None = None,
  ) -> 'LoadedTask':
    """Makes the task, reads its parameters and checks both on examples.

    Args:
      reference: how to make the task.
      probe: see the attribute.

    Raises:
      errors.InputError: Something of the task is missing or wrong.
    """
    task = reference.load()
    task.corpus.check()
    loaded = cls(task, task.load_parameters(), reference.parameter_paths, probe)
    loaded.check_loss()
    shard_files.check_columns(loaded._checked_batch.columns)
    return loaded

  @functools.cached_property
  def selected(self) -> dict[str, types.Array]:
    return parameter_selection.select_parameters(
      self.params, self.task.parameter_paths
    )

  @functools.cached_property
  def fingerprints(self) -> dict[str, str]:
    """What projections depend on besides the basis and the corpus."""
    return {
      'parameters': fingerprints.of_arrays(self.params),
      'selected_paths': fingerprints.of_paths(self.selected),
      'loss_reduction': self.task.loss_reduction,
      'preprocessing': fingerprints.of_arrays(self._probe_features()),
      'task_version': self.task.version,
    }

  @property
  def checked_features(self) -> types.Features:
    """Features of the first few examples, which the loss was tried on."""
    return self._checked_batch.features

  def with_probe(
    self, probe: tuple[corpus_lib.RawExample, ...]
  ) -> 'LoadedTask':
    """The same, with preprocessing known by other examples."""
    return dataclasses.replace(self, probe=probe)

  def first_examples(self) -> list[corpus_lib.RawExample]:
    """The first few raw examples of the corpus, without undecodable ones."""
    return [
      raw
      for _, raw in self._first_examples
      if not isinstance(raw, corpus_lib.UndecodableExample)
    ]

  @functools.cached_property
  def _first_examples(
    self,
  ) -> list[tuple[str, corpus_lib.RawExample | corpus_lib.UndecodableExample]]:
    count = min(_NUM_CHECKED_EXAMPLES, self.task.corpus.num_examples)
    return list(self.task.corpus.read_positions(range(count)))

  @functools.cached_property
  def _checked_batch(self) -> ExampleBatch:
    return self._preprocess_all(self._first_examples)

  def _probe_features(self) -> types.Features:
    if self.probe is None:
      return self._checked_batch.features
    examples = [(str(raw[corpus_lib.ID_KEY]), raw) for raw in self.probe]
    return self._preprocess_all(examples).features

  def _preprocess_all(self, examples) -> ExampleBatch:
    batch = self.preprocess_batch(examples)
    if batch.rejected:
      example_id, reason = next(iter(batch.rejected.items()))
      raise errors.InputError(
        f'task {self.task.name}: example {example_id} cannot be used '
        f'({reason}); correct preprocess or the dataset'
      )
    return batch

  def preprocess_batch(
    self,
    examples: Iterable[
      tuple[str, corpus_lib.RawExample | corpus_lib.UndecodableExample]
    ],
  ) -> ExampleBatch:
    """Features and row columns of raw examples, stacked."""
    ids, features, columns, rejected = [], [], [], {}
    for example_id, raw in examples:
      if isinstance(raw, corpus_lib.UndecodableExample):
        rejected[example_id] = f'undecodable: {raw.reason}'
        continue
      try:
        feature = jax.tree.map(np.asarray, self.task.preprocess(raw))
        column = self.task.row_columns(raw) if self.task.row_columns else {}
      except Exception as error:  # The user's code may raise anything.
        rejected[example_id] = f'preprocess: {type(error).__name__}: {error}'
        continue
      ids.append(example_id)
      features.append(feature)
      columns.append(column)
    names = columns[0].keys() if columns else ()
    return ExampleBatch(
      ids,
      _stack(self.task.name, ids, features) if features else None,
      {name: [column[name] for column in columns] for name in names},
      rejected,
    )

  def check_loss(self) -> None:
    """Evaluates the loss on a few examples.

    Raises:
      errors.InputError: The loss fails, has the wrong shape or dtype, or is
        not finite.
    """
    name, features = self.task.name, self._checked_batch.features
    params = parameter_layout.fitting(self.params)
    try:
      losses = self.task.per_example_loss(params, features)
    except Exception as error:  # The user's model may raise anything.
      raise errors.InputError(
        f'task {name}: per_example_loss failed on a few examples '
        f'({type(error).__name__}: {_first_line(error)}); do '
        'model, checkpoint and preprocess belong together?'
      ) from error
    expected = (len(self._checked_batch.ids),)
    found = getattr(losses, 'shape', None)
    if found != expected:
      raise errors.InputError(
        f'task {name}: per_example_loss returned shape {found}, expected '
        f'{expected}, one loss per example; do not reduce over the batch'
      )
    if not jnp.issubdtype(losses.dtype, jnp.floating):
      raise errors.InputError(
        f'task {name}: per_example_loss returned {losses.dtype}, expected a '
        'floating-point type'
      )
    finite = np.isfinite(np.asarray(losses))
    if not finite.all():
      index = int(np.argmin(finite))
      raise errors.InputError(
        f'task {name}: the loss of {self._checked_batch.ids[index]} is '
        f'{losses[index]}, expected a finite number; check the parameters and '
        'preprocess'
      )


def _stack(name: str, ids: list[str], features: list[Any]) -> types.Features:
  expected = jax.tree.map(np.shape, features[0])
  for example_id, feature in zip(ids, features, strict=True):
    shapes = jax.tree.map(np.shape, feature)
    if shapes != expected:
      raise errors.InputError(
        f'task {name}: features of {example_id} have shapes {shapes}, those of '
        f'{ids[0]} {expected}; pad or crop to one shape in preprocess'
      )
  return jax.tree.map(lambda *leaves: np.stack(leaves), *features)


def _first_line(error: Exception) -> str:
  return str(error).partition('\n')[0]
