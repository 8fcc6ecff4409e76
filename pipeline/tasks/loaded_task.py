"""A task made ready to compute: parameters in memory, checked, fingerprinted.

Used the same way by the basis job, by every projecting worker and by queries,
so that all three agree on what a fingerprint covers.
"""

from collections.abc import Iterable, Iterator
import dataclasses
import functools
import itertools

import jax

from influence_core import (
  errors,
  parameter_arrays,
  parameter_selection,
  types,
  user_code,
)
from pipeline.corpora import corpus as corpus_lib
from pipeline.index import shard_files
from pipeline.storage import fingerprints
from pipeline.tasks import (
  example_batches,
  example_form,
  first_examples,
  loss_check,
  padding,
  task as task_lib,
  token_form,
)
from pipeline.tasks.reference import TaskReference


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
  def load(cls, reference: TaskReference) -> 'LoadedTask':
    """Makes the task, reads its parameters and checks both on examples.

    Args:
      reference: how to make the task.

    Raises:
      errors.InputError: Something of the task is missing or wrong.
    """
    loaded = cls.unchecked(reference)
    loaded.check_loss()
    return loaded

  @classmethod
  def unchecked(
    cls,
    reference: TaskReference,
    *,
    probe: tuple[corpus_lib.RawExample, ...] | None = None,
  ) -> 'LoadedTask':
    """Makes the task and reads its parameters.

    For what belongs to a basis: fingerprints are compared before `check_loss`,
    so that another task is told from one that is wrong.

    Args:
      reference: how to make the task.
      probe: see the attribute.

    Raises:
      errors.InputError: Something of the task is missing.
    """
    task = reference.load()
    task.corpus.check()
    with user_code.user_errors(
      f'load_parameters of task {task.name}', task.load_parameters
    ):
      params, keys = parameter_arrays.as_arrays(task.load_parameters())
    task = _restoring(task, keys)
    return cls(task, params, reference.parameter_paths, probe)

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
      'selected_paths': self._selection_fingerprint(),
      'loss_reduction': self.task.loss_reduction,
      'preprocessing': self._preprocessing_fingerprint(),
      'task_version': self.task.version,
    }

  @functools.cached_property
  def form(self) -> example_form.ExampleForm:
    """What all examples of a job have in common.

    That of the probe, if there is one: whatever the corpus begins with by now,
    workers agree, and so do runs that reuse each other's shards.
    """
    examples = []
    for example_id, raw in self._named_probe:
      try:
        examples.append(example_form.prepare(self.task, example_id, raw))
      except example_form.UnusableExampleError:
        continue  # Told where the probe is compared.
    return example_form.ExampleForm.of(
      self.task, examples or self._unformed_examples
    )

  @property
  def checked_features(self) -> types.Features:
    """Features of the first few examples whose loss is finite."""
    return self._checked.batch.features

  @property
  def checked_ids(self) -> list[str]:
    """Ids of these examples."""
    return self._checked.batch.ids

  @property
  def num_tokens(self) -> int:
    """Of the first few examples, padded."""
    assert self.task.token_losses is not None
    losses = jax.eval_shape(
      self.task.token_losses, self.params, self.checked_features
    )
    return losses.shape[1]

  @property
  def planned_features(self) -> types.Features:
    """[1, ...] shapes of the largest example there can be, as far as known."""
    buckets = self.form.buckets
    features = jax.tree.map(lambda leaf: leaf[0], self.checked_features)
    if buckets:
      count = len(self.form.features.sequences)
      features = self.form.features.pad(features, [buckets[-1]] * count)
    return jax.tree.map(
      lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), features
    )

  def with_probe(
    self, probe: tuple[corpus_lib.RawExample, ...]
  ) -> 'LoadedTask':
    """The same, with preprocessing known by other examples."""
    return dataclasses.replace(self, probe=probe)

  def by_token(self) -> 'LoadedTask':
    """The same with token texts in a column, for rows of tokens.

    Raises:
      errors.InputError: The task has no tokens, or they do not add up.
    """
    self.check_token_losses()
    task = token_form.by_token(self.task)
    return dataclasses.replace(self, task=task)

  def measuring(self) -> 'LoadedTask':
    """The same with what is asked of queries in place of the loss."""
    measurement = self.task.measurement
    if measurement is None:
      return self
    task = dataclasses.replace(self.task, per_example_loss=measurement)
    return dataclasses.replace(self, task=task)

  def first_examples(self) -> list[corpus_lib.RawExample]:
    """The first few raw examples of the corpus that can be used."""
    return [example.raw for example in self._first_examples]

  def check_loss(self) -> None:
    """Tries the loss on a few examples.

    Raises:
      errors.InputError: The loss fails, cannot be traced or differentiated, has
        the wrong shape or dtype, is not finite for any of them, or changes with
        the rest of a batch.
    """
    self._loss_check.check_values(self.selected, self._checked)
    finite = set(self.checked_ids)
    padding.check(
      self.task,
      self.params,
      self.selected,
      self.form,
      [
        self.form.convert(example)
        for example in self._first_examples
        if example.example_id in finite
      ],
    )

  def check_split_loss(self) -> None:
    """Tries the loss in two parts, where it is needed.

    Raises:
      errors.InputError: The task has none, it fails or is another loss.
    """
    self._loss_check.check_split(self._checked)

  def check_token_losses(self) -> None:
    """Tries the losses of tokens, where they are needed.

    Raises:
      errors.InputError: The task has none, they fail or do not add up to the
        loss.
    """
    self._loss_check.check_tokens(self._checked)

  def finite_batches(self) -> Iterator[loss_check.FiniteBatch]:
    """A few examples whose losses are finite, and then as many others."""
    steps = map(self.preprocess_batch, first_examples.steps(self.task.corpus))
    return self._loss_check.finite(itertools.chain([self._first_batch], steps))

  @functools.cached_property
  def _named_probe(self) -> list[tuple[str, corpus_lib.RawExample]]:
    return [(str(raw[corpus_lib.ID_KEY]), raw) for raw in self.probe or ()]

  @functools.cached_property
  def _unformed_examples(self) -> list[example_form.PreparedExample]:
    return first_examples.first_usable(self.task)

  @functools.cached_property
  def _first_examples(self) -> list[example_form.PreparedExample]:
    if self.probe is not None:
      return first_examples.first_usable(self.task, self.form)
    return [x for x in self._unformed_examples if self.form.fits(x)]

  @functools.cached_property
  def _first_batch(self) -> example_batches.ExampleBatch:
    examples = [self.form.convert(example) for example in self._first_examples]
    first_examples.check_first(self.task, self.form, examples)
    batch = example_batches.stack(self.form, examples)
    shard_files.check_storable(batch.columns)
    return batch

  @functools.cached_property
  def _loss_check(self) -> loss_check.LossCheck:
    return loss_check.LossCheck(self.task, self.params)

  @functools.cached_property
  def _checked(self) -> loss_check.FiniteBatch:
    self._loss_check.check_form(self._first_batch.features)
    for finite in self.finite_batches():
      return finite
    raise errors.InputError(
      f'task {self.task.name}: the loss of {self._first_batch.ids[0]}, and of '
      'all others of the first '
      f'{first_examples.num_looked_at(self.task.corpus)} examples, is not '
      'finite, expected a finite number; check the parameters and preprocess'
    )

  def _selection_fingerprint(self) -> str:
    """Of other parameters where those of a basis are not there."""
    try:
      return fingerprints.of_paths(self.selected)
    except errors.InputError as error:
      if self.probe is None:
        raise
      return f'none: {error}'

  def _preprocessing_fingerprint(self) -> str:
    """Of other preprocessing where that of a basis does not work."""
    examples: Iterable[tuple[str, example_form.AnyExample]] = self._named_probe
    if self.probe is None:
      examples = ((x.example_id, x.raw) for x in self._first_examples)
    return example_batches.fingerprint(self.task, self.form, examples)

  def preprocess_batch(
    self, examples: Iterable[tuple[str, example_form.AnyExample]]
  ) -> example_batches.ExampleBatch:
    """Features and row columns of raw examples, stacked, in the task's form.

    Sequences are padded to the bucket of the longest.
    """
    return example_batches.read(self.task, self.form, list(examples))

  def preprocess_by_length(
    self,
    examples: Iterable[tuple[str, example_form.AnyExample]],
    batch_size: int,
  ) -> Iterator[example_batches.ExampleBatch]:
    """Batches of examples whose sequences are padded to the same buckets.

    Yields:
      Full batches as they come, then the others; what was rejected on the way
      with the next of them. Without sequences, all in their order.
    """
    return example_batches.by_length(self.task, self.form, examples, batch_size)


def _restoring(
  task: task_lib.Task, keys: parameter_arrays.RandomKeys
) -> task_lib.Task:
  """The task with functions that take parameters as `as_arrays` gives them."""
  split = task.split_loss
  return dataclasses.replace(
    task,
    per_example_loss=keys.restoring(task.per_example_loss),
    measurement=task.measurement and keys.restoring(task.measurement),
    predict=task.predict and keys.restoring(task.predict),
    token_losses=task.token_losses and keys.restoring(task.token_losses),
    split_loss=split
    and dataclasses.replace(split, outputs=keys.restoring(split.outputs)),
  )
