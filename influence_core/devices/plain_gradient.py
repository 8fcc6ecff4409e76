"""Gradients as JAX gives them: of queries, and to compare projections with."""

from collections.abc import Callable, Collection
import functools

import jax

from influence_core import parameter_selection, types
from influence_core.devices import parameter_layout


def compile_gradient(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  paths: Collection[str],
) -> Callable[[types.Features], dict[str, jax.Array]]:
  """The gradient of the sum of losses of a batch, compiled once for a shape.

  Parameters are put on the devices at once, cut over them if too many for one.

  Args:
    per_example_loss: (params, [batch, ...] features) -> [batch] losses.
    params: pytree of arrays.
    paths: parameters that gradients are taken for.

  Returns:
    [batch, ...] features -> gradients by path.
  """
  placed = parameter_layout.fit_devices(params)
  leaves = parameter_selection.all_parameters(placed)
  gradient = jax.jit(
    functools.partial(parameter_selection.batch_gradient, per_example_loss)
  )
  return functools.partial(gradient, placed, {x: leaves[x] for x in paths})
