"""The loss of a task tried on a few examples, before any work starts."""

from collections.abc import Iterable, Iterator
import contextlib
from typing import NamedTuple

import numpy as np

from influence_core import errors, loss_contract, loss_tracing, types
from influence_core.curvature import products as curvature_products
from influence_core.devices import parameter_layout
from pipeline.tasks import example_batches, task as task_lib


class FiniteBatch(NamedTuple):
  """Examples whose losses are finite.

  Attributes:
    batch: the examples.
    losses: [num_examples] float32, theirs among those of a batch.
  """

  batch: example_batches.ExampleBatch
  losses: np.ndarray


class LossCheck:
  """The loss of a task, traced once for each number of examples."""

  def __init__(self, task: task_lib.Task, params: types.Params):
    """Traces nothing yet.

    Args:
      task: the task.
      params: pytree of arrays.
    """
    self._task = task
    self._params = params
    is_measurement = task.per_example_loss is task.measurement
    self._loss = loss_tracing.NamedLoss(
      task.per_example_loss,
      'measurement' if is_measurement else 'per_example_loss',
    )

  def check_form(self, features: types.Features) -> None:
    """Traces the loss; see `loss_contract.check_form`.

    Args:
      features: pytree of [num_examples, ...] arrays.

    Raises:
      errors.InputError: The loss cannot be traced, or has the wrong shape or
        dtype.
    """
    with self._naming_the_task():
      loss_contract.check_form(self._loss, self._params, features)

  def finite(
    self, batches: Iterable[example_batches.ExampleBatch]
  ) -> Iterator[FiniteBatch]:
    """What has a finite loss of each batch, if anything has.

    Raises:
      errors.InputError: The loss fails.
    """
    params = parameter_layout.fit_devices(self._params)
    for batch in batches:
      if not batch.ids:
        continue
      with self._naming_the_task():
        losses = loss_contract.evaluate(self._loss, params, batch.features)
      places = np.flatnonzero(np.isfinite(losses))
      if places.size:
        finite = example_batches.take_examples(batch, places)
        yield FiniteBatch(finite, losses[places])

  def check_values(
    self, selected: types.SelectedParameters, finite: FiniteBatch
  ) -> None:
    """Differentiates the loss, and evaluates it example by example.

    Args:
      selected: parameters that gradients are taken for, by path.
      finite: a few examples.

    Raises:
      errors.InputError: The loss has no gradient, or changes with the rest of a
        batch.
    """
    features = finite.batch.features
    params = parameter_layout.fit_devices(self._params)
    with self._naming_the_task():
      loss_contract.check_differentiable(self._loss, params, selected, features)
      loss_contract.check_independent(
        self._loss,
        params,
        features,
        ids=finite.batch.ids,
        together=finite.losses,
      )

  def check_split(self, finite: FiniteBatch) -> None:
    """Compares the loss in two parts with the loss itself.

    Args:
      finite: a few examples.

    Raises:
      errors.InputError: The task has no such loss, it fails or is another one.
    """
    split = loss_tracing.NamedLoss(
      curvature_products.require_split_loss(
        self._task.split_loss
      ).per_example_loss,
      'split_loss',
    )
    features = finite.batch.features
    params = parameter_layout.fit_devices(self._params)
    with self._naming_the_task():
      loss_contract.check_form(split, params, features)
      losses = loss_contract.evaluate(split, params, features)
      _check_same('split_loss', losses, finite)

  def check_tokens(self, finite: FiniteBatch) -> None:
    """Compares the sums of the losses of tokens with the loss itself.

    Args:
      finite: a few examples.

    Raises:
      errors.InputError: The task has no such losses, they fail, or do not add
        up to the loss.
    """
    if self._task.token_losses is None or self._task.token_texts is None:
      raise errors.InputError(
        f'task {self._task.name} has no tokens; give it token_losses and '
        'token_texts, or leave tokens out'
      )
    token_losses = loss_tracing.NamedLoss(
      self._task.token_losses, 'token_losses'
    )
    features = finite.batch.features
    params = parameter_layout.fit_devices(self._params)
    with self._naming_the_task():
      loss_tracing.check_traceable(token_losses, params, features)
      losses = loss_contract.evaluate(token_losses, params, features)
      count = len(finite.losses)
      if losses.ndim != 2 or len(losses) != count:
        raise errors.InputError(
          f'token_losses returned shape {losses.shape}, expected ({count}, '
          'tokens), a loss for each token of each example'
        )
      _check_same('sum of token_losses', losses.sum(axis=1), finite)

  @contextlib.contextmanager
  def _naming_the_task(self) -> Iterator[None]:
    try:
      yield
    except errors.InputError as error:
      raise errors.InputError(f'task {self._task.name}: {error}') from error


def _check_same(name: str, losses: np.ndarray, finite: FiniteBatch) -> None:
  """Raises `errors.InputError` unless losses are those of the batch.

  Args:
    name: of the losses.
    losses: [num_examples] of them.
    finite: with what they should be.
  """
  tolerance = loss_contract.LOW_PRECISION_TOLERANCE
  is_same = np.isclose(losses, finite.losses, tolerance, tolerance)
  if not is_same.all():
    place = int(is_same.argmin())
    raise errors.InputError(
      f'the {name} of {finite.batch.ids[place]} is {losses[place]:.6g} and its '
      f'per_example_loss {finite.losses[place]:.6g}; they must be the same'
    )
