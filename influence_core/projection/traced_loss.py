"""Traces the loss of one example, which the factored projection works on."""

from collections.abc import Sequence
import dataclasses

import jax
import jax.numpy as jnp

from influence_core import loss_tracing, parameter_selection, types, user_code
from influence_core.projection import loss_analysis, plan as projection_plan


@dataclasses.dataclass(frozen=True)
class TracedLoss:
  """The loss of one example as a list of equations, and the plan for it.

  Attributes:
    plan: the plan; its function takes the leaves of `arguments`.
    paths: the selected parameters, sorted.
    num_tokens: length of a per-token loss, None for a loss per example.
  """

  plan: projection_plan.Scope
  paths: tuple[str, ...]
  num_tokens: int | None

  def arguments(
    self, leaves: types.SelectedParameters, example: types.Features
  ) -> list[jax.Array]:
    """Inputs of the plan's function from all parameters and one example."""
    return jax.tree.leaves((*_split(leaves, self.paths), example))

  @property
  def uses_low_precision(self) -> bool:
    """Whether any value is computed in a format shorter than float32."""
    return loss_tracing.uses_low_precision(self.plan.jaxpr.jaxpr)


def trace_loss(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  paths: Sequence[str],
  features: types.Features,
) -> TracedLoss:
  """Traces the loss on a batch of one and plans its projection.

  Args:
    per_example_loss: (params, [batch, ...] features) -> [batch] losses, or
      [batch, tokens] losses whose tokens are projected each by itself.
    params: pytree of arrays.
    paths: parameters that gradients are taken for.
    features: pytree of [num_examples, ...] arrays, for their shapes.

  Raises:
    errors.InputError: The loss cannot be traced, or not evaluated on a single
      example.
  """
  paths = tuple(sorted(paths))
  leaves = parameter_selection.all_parameters(params)
  example = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), features
  )

  def loss(selected, others, example):
    replaced = parameter_selection.replace_parameters(
      params, {**others, **selected}
    )
    batch = jax.tree.map(lambda leaf: leaf[None], example)
    [losses] = per_example_loss(replaced, batch)
    if losses.ndim > 1:
      raise ValueError(losses.shape)
    return losses.astype(jnp.float32)

  try:
    jaxpr = jax.make_jaxpr(loss)(*_split(leaves, paths), example)
  except user_code.ERRORS:
    named = loss_tracing.NamedLoss(per_example_loss)
    loss_tracing.check_traceable(named, params, features)
    loss_tracing.check_batch_size(named, params, features, 1)
    raise
  [output] = jaxpr.out_avals
  return TracedLoss(
    plan=loss_analysis.make_plan(jaxpr, paths),
    paths=paths,
    num_tokens=output.shape[0] if output.shape else None,
  )


def _split(leaves, paths):
  """(selected, others): dictionaries, which flatten in the order of keys."""
  selected = {path: leaves[path] for path in paths}
  others = {path: leaves[path] for path in leaves if path not in selected}
  return selected, others
