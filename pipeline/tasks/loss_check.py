"""The loss tried on a few examples, before any work starts."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from influence_core import errors, types
from influence_core.projection import traced_loss
from pipeline.tasks import task as task_lib


def finite_losses(
  task: task_lib.Task,
  params: types.Params,
  ids: Sequence[str],
  features: types.Features,
) -> np.ndarray:
  """[num_examples] bool: whose loss is a finite number.

  Args:
    task: the task.
    params: pytree of arrays.
    ids: of the examples.
    features: pytree of [num_examples, ...] arrays.

  Raises:
    errors.InputError: The loss fails, or has the wrong shape or dtype.
  """
  try:
    losses = task.per_example_loss(params, features)
  except Exception as error:  # The user's model may raise anything.
    raise errors.InputError(
      f'task {task.name}: per_example_loss failed on a few examples '
      f'({type(error).__name__}: {errors.first_line(error)}); do '
      'model, checkpoint and preprocess belong together?'
    ) from error
  expected = (len(ids),)
  found = getattr(losses, 'shape', None)
  if found != expected:
    next_step = (
      'sum or average over the tokens of each example'
      if found and len(found) > 1 and found[0] == len(ids)
      else 'do not reduce over the batch'
    )
    raise errors.InputError(
      f'task {task.name}: per_example_loss returned shape {found}, expected '
      f'{expected}, one loss per example; {next_step}'
    )
  if not jnp.issubdtype(losses.dtype, jnp.floating):
    raise errors.InputError(
      f'task {task.name}: per_example_loss returned {losses.dtype}, expected a '
      'floating-point type'
    )
  return np.isfinite(np.asarray(losses, np.float32))


def check_traceable(
  task: task_lib.Task, params: types.Params, features: types.Features
) -> None:
  """Refuses a loss that runs by itself but not inside a compiled program.

  Args:
    task: the task.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays.

  Raises:
    errors.InputError: With JAX's own reason.
  """
  reason = traced_loss.why_untraceable(task.per_example_loss, params, features)
  if reason:
    raise errors.InputError(f'task {task.name}: {reason}')
