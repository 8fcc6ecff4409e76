"""Traces the loss of one example, which the factored projection works on."""

from collections.abc import Sequence
import dataclasses

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp

from influence_core import errors, parameter_selection, types
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
    return any(
      jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
      for dtype in _dtypes(self.plan.jaxpr.jaxpr)
    )


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
    losses = per_example_loss(replaced, batch)
    if losses.ndim not in (1, 2) or len(losses) != 1:
      raise errors.InputError(
        f'per_example_loss returned shape {losses.shape} for a batch of one '
        'example, expected (1,); it must work for any batch size, so take the '
        'batch size from the features'
      )
    return losses[0].astype(jnp.float32)

  try:
    jaxpr = jax.make_jaxpr(loss)(*_split(leaves, paths), example)
  except errors.InputError:
    raise
  except Exception as error:  # The user's model may raise anything.
    reason = why_untraceable(per_example_loss, params, features)
    raise errors.InputError(
      reason
      or 'per_example_loss fails on a batch of one example '
      f'({_in_one_line(error)}); it must work for any batch size, so take the '
      'batch size from the features'
    ) from error
  [output] = jaxpr.out_avals
  return TracedLoss(
    plan=loss_analysis.make_plan(jaxpr, paths),
    paths=paths,
    num_tokens=output.shape[0] if output.shape else None,
  )


def why_untraceable(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  features: types.Features,
) -> str | None:
  """What is wrong with a loss that JAX cannot trace; None for a good one.

  Args:
    per_example_loss: (params, [batch, ...] features) -> losses.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays that it can be evaluated on.
  """
  try:
    jax.eval_shape(per_example_loss, params, features)
  except Exception as error:  # The user's model may raise anything.
    return (
      f'per_example_loss cannot be traced ({_in_one_line(error)}); it must be '
      'pure and made of jax.numpy operations: no float(), numpy or Python '
      'branch on values, and no change of a module from outside (nnx.split it '
      'before, nnx.merge inside)'
    )
  return None


def _in_one_line(error: Exception) -> str:
  return f'{type(error).__name__}: {errors.first_line(error)}'


def _split(leaves, paths):
  """(selected, others): dictionaries, which flatten in the order of keys."""
  selected = {path: leaves[path] for path in paths}
  others = {path: leaves[path] for path in leaves if path not in selected}
  return selected, others


def _dtypes(jaxpr: jax_core.Jaxpr):
  for equation in jaxpr.eqns:
    for variable in equation.outvars:
      if hasattr(variable.aval, 'dtype'):
        yield variable.aval.dtype
    for inner in jax_core.jaxprs_in_params(equation.params):
      yield from _dtypes(inner)
