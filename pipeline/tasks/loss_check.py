"""The loss of a task tried on a few examples, before any work starts."""

from collections.abc import Iterator
import contextlib
import functools

import jax
import numpy as np

from influence_core import errors, loss_contract, types, user_code
from influence_core.curvature import products as curvature_products
from pipeline.tasks import task as task_lib


class LossCheck:
  """The loss of a task, traced once for each number of examples."""

  def __init__(self, task: task_lib.Task):
    """Traces nothing yet."""
    self._task = task

    @functools.wraps(task.per_example_loss)  # Whose place errors name.
    def loss(params, features):
      return task.per_example_loss(params, features)

    self._loss = jax.jit(loss)

  def check_form(self, params: types.Params, features: types.Features) -> None:
    """Traces the loss; see `loss_contract.check_form`.

    Args:
      params: pytree of arrays.
      features: pytree of [num_examples, ...] arrays.

    Raises:
      errors.InputError: The loss cannot be traced, or has the wrong shape or
        dtype.
    """
    with self._named():
      loss_contract.check_form(self._loss, params, features)

  def losses(
    self, params: types.Params, features: types.Features
  ) -> np.ndarray:
    """[num_examples] float32 losses of the examples in one batch.

    Raises:
      errors.InputError: The loss fails.
    """
    with self._named():
      return loss_contract.evaluate(self._loss, params, features)

  def check_values(
    self,
    params: types.Params,
    selected: types.SelectedParameters,
    features: types.Features,
    *,
    ids: list[str],
    together: np.ndarray,
  ) -> None:
    """Differentiates the loss, and evaluates it example by example.

    Args:
      params: pytree of arrays.
      selected: parameters that gradients are taken for, by path.
      features: pytree of [num_examples, ...] arrays whose losses are finite.
      ids: of the examples.
      together: [num_examples] losses of theirs, from a batch.

    Raises:
      errors.InputError: The loss has no gradient, or changes with the rest of a
        batch.
    """
    with self._named():
      loss_contract.check_differentiable(self._loss, params, selected, features)
      loss_contract.check_independent(
        self._loss, params, features, ids=ids, together=together
      )

  def check_split(self, params: types.Params, features: types.Features) -> None:
    """Evaluates the loss in two parts, and compares it with the loss itself.

    Args:
      params: pytree of arrays.
      features: pytree of [num_examples, ...] arrays whose losses are finite.

    Raises:
      errors.InputError: It fails, or is another loss.
    """
    split = curvature_products.require_split_loss(self._task.split_loss)
    what = f'split_loss of task {self._task.name}'
    with user_code.user_errors(what, split.outputs):
      parts = np.asarray(jax.jit(split.per_example_loss)(params, features))
    whole = self.losses(params, features)
    tolerance = loss_contract.LOW_PRECISION_TOLERANCE
    if parts.shape != whole.shape or not np.allclose(
      parts, whole, rtol=tolerance, atol=tolerance
    ):
      raise errors.InputError(
        f'{what} gives {_shown(parts)}, but per_example_loss {_shown(whole)} '
        'for the same examples; they must be the same loss'
      )

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    try:
      yield
    except errors.InputError as error:
      raise errors.InputError(f'task {self._task.name}: {error}') from error


def _shown(losses: np.ndarray) -> str:
  return np.array2string(losses, precision=4, separator=', ', threshold=8)
