"""A task over several checkpoints of one training: TracIn.

TracIn (Pruthi et al., "Estimating Training Data Influence by Tracing Gradient
Descent", NeurIPS 2020, section 3.2) sums inner products of gradients over
checkpoints. That is the inner product of the gradients of one loss, the sum of
the losses of all checkpoints, with respect to all their parameters. So it is
computed, stored and searched like every other influence.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math

import jax

from influence_core import errors, types
from pipeline.tasks import task as task_lib


def sum_checkpoints(
  task: task_lib.Task,
  load_parameters: Mapping[str, Callable[[], types.Params]],
  step_sizes: Mapping[str, float] | None = None,
) -> task_lib.Task:
  """The task whose parameters are those of all checkpoints, by name.

  Args:
    task: for one of them.
    load_parameters: reads each checkpoint.
    step_sizes: learning rates at the checkpoints; None for equal ones.

  Returns:
    A task for `random-basis --method random` or `query-basis --method
    gradient`, with parameter paths NAME/PATH. It has neither a split loss nor
    retrain.

  Raises:
    errors.InputError: There is no checkpoint.
  """
  if not load_parameters:
    raise errors.InputError(
      f'task {task.name} has no checkpoints; train it with checkpoints kept'
    )
  sizes = step_sizes or dict.fromkeys(load_parameters, 1.0)

  def summed(loss: types.PerExampleLoss) -> types.PerExampleLoss:
    def over_all(params: types.Params, features: types.Features) -> jax.Array:
      losses = [
        math.sqrt(sizes[name]) * loss(part, features)
        for name, part in params.items()
      ]
      return sum(losses[1:], losses[0])

    return over_all

  return dataclasses.replace(
    task,
    load_parameters=lambda: {
      name: load() for name, load in load_parameters.items()
    },
    per_example_loss=summed(task.per_example_loss),
    token_losses=task.token_losses and summed(task.token_losses),
    split_loss=None,
    retrain=None,
  )
