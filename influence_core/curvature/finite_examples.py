"""Finds examples whose loss or gradient is no finite number.

One of them makes every product with the curvature of a sample meaningless. So
they are found before: whole batches are differentiated at once, and only those
with something wrong in them example by example.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.devices import (
  memory as device_memory,
  multi_device,
  parameter_layout,
  program as device_program,
)

_PREFERRED_BATCH = 64
# Where there is no room for a gradient, as many as the start-up check takes.
_LOSS_BATCH = 4

# (params, features) -> ([batch] whose loss is finite, whether the sum of their
# gradients is).
_Check = Callable[[types.Params, types.Features], tuple[Any, Any]]


class FiniteExamples:
  """Looks for them; what it compiles is kept for examples of the same shapes.

  Gradients are not looked at where memory does not suffice for one of them
  beside the parameters.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    selected: types.SelectedParameters,
    memory_budget_bytes: int | None = None,
  ):
    """Compiles nothing yet.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      selected: parameters that gradients are taken for, by path.
      memory_budget_bytes: memory to use; None for most of a device's.
    """
    self._loss = per_example_loss
    self._params = params
    self._paths = tuple(selected)
    self._budget = memory_budget_bytes
    self._checks: dict[Any, tuple[_Check, int]] = {}

  def __call__(self, features: types.Features) -> np.ndarray:
    """[num_examples] bool: whose loss and gradient are finite.

    Args:
      features: pytree of [num_examples, ...] arrays, num_examples >= 1.
    """
    # Not there to stay: what is done with the examples has them, too.
    params = parameter_layout.fit_devices(self._params)
    shapes = device_program.example_shapes(features)
    if shapes not in self._checks:
      self._checks[shapes] = self._compiled(params, features)
    check, size = self._checks[shapes]
    found = []
    count = multi_device.num_examples(features)
    for start in range(0, count, size):
      batch = multi_device.filled(features, start, size)
      losses, gradient = check(params, batch)
      good = np.array(losses)[: count - start]
      if not gradient:
        for number in np.flatnonzero(good).tolist():
          one = multi_device.filled(batch, number, 1)
          alone = multi_device.filled(one, 0, size)
          good[number] = bool(check(params, alone)[1])
      found.append(good)
    return np.concatenate(found)

  def _compiled(
    self, params: types.Params, features: types.Features
  ) -> tuple[_Check, int]:
    """The check of a batch, and its size."""
    budget = self._budget or device_memory.default_budget_bytes()
    taken = parameter_layout.shard_bytes(params)

    def compile_gradient(size: int) -> device_program.Program:
      check = jax.jit(_gradient_check(self._loss, self._paths))
      shapes = device_program.with_lead(features, size)
      lowered = check.lower(params, shapes)
      return device_program.compile_lowered(lowered, size)

    try:
      program = device_program.largest_program(
        compile_gradient,
        budget - taken,
        preferred=_PREFERRED_BATCH,
        num_examples=multi_device.num_examples(features),
        useful_bytes=device_program.useful_bytes(taken),
      )
      return program.compiled, program.micro_batch
    except errors.InputError:
      return jax.jit(_loss_check(self._loss)), _LOSS_BATCH


def _gradient_check(
  per_example_loss: types.PerExampleLoss, paths: tuple[str, ...]
) -> _Check:
  def check(params, features):
    leaves = parameter_selection.all_parameters(params)

    def total(selected):
      replaced = parameter_selection.replace_parameters(params, selected)
      losses = per_example_loss(replaced, features).astype(jnp.float32)
      return jnp.sum(losses), losses

    selected = {path: leaves[path] for path in paths}
    gradient, losses = jax.grad(total, has_aux=True)(selected)
    finite = [jnp.isfinite(leaf).all() for leaf in gradient.values()]
    return jnp.isfinite(losses), jnp.stack(finite).all()

  return check


def _loss_check(per_example_loss: types.PerExampleLoss) -> _Check:
  def check(params, features):
    finite = jnp.isfinite(per_example_loss(params, features))
    return finite, jnp.array(True)

  return check
