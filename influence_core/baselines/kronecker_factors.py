"""Factors of per-example gradients at every parameter, for EK-FAC.

Each parameter is read as a stack of matrices [batch, rows, columns], and the
gradient of an example as sum_t left[t] right[t]^T, as in `weight_sites`. One
without such factors is a single row: left is 1, right its whole gradient.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import errors, types
from influence_core.projection import (
  collectors as gradient_collectors,
  contraction as gradient_contraction,
  factored_projection,
  packing as basis_packing,
  plan as projection_plan,
  traced_loss,
)

# (left [batch, position, row], right [batch, position, column]) by path.
Factors = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class ParameterMatrices:
  """How a parameter is read as a stack of matrices.

  Attributes:
    shape: of the parameter.
    weight: its sites; None for a parameter without.
    is_lookup: whether rows are looked up, so that no two go together.
  """

  shape: tuple[int, ...]
  weight: projection_plan.FactoredWeight | None

  @property
  def is_lookup(self) -> bool:
    return self.weight is not None and self.weight.num_lookups > 0

  def to_matrices(self, arrays: jax.Array) -> jax.Array:
    """[count, *shape] as [count, batch, rows, columns]."""
    if self.weight is None:
      return arrays.reshape(len(arrays), 1, 1, -1)
    arranged = jnp.asarray(basis_packing.arrange(self.weight, arrays, jnp))
    return self.weight.layout.as_matrices(arranged)

  def from_matrices(self, matrices: jax.Array) -> jax.Array:
    """The inverse, which is the transpose: entries only change places."""
    count = len(matrices)
    like = jax.ShapeDtypeStruct((count, *self.shape), matrices.dtype)
    [arrays] = jax.linear_transpose(self.to_matrices, like)(matrices)
    return arrays


class FactoredGradients:
  """Per-example gradients of a loss in factored form."""

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    selected: types.SelectedParameters,
    features: types.Features,
  ):
    """Traces the loss.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      selected: parameters that gradients are taken for, by path.
      features: pytree of [num_examples, ...] arrays, for their shapes.

    Raises:
      errors.InputError: A parameter is stacked for a scan over layers.
    """
    self._traced = traced_loss.trace_loss(
      per_example_loss, params, tuple(selected), features
    )
    plan = self._traced.plan
    for scope in plan.scopes.values():
      for weight in scope.all_weights():
        raise errors.InputError(
          f'parameter {weight.path} is stacked for a scan over layers, which '
          "EK-FAC does not handle; leave it out by --parameter_paths '!...'"
        )
    self._factored = plan.factored
    by_path = {weight.path: weight for weight in self._factored}
    self.matrices = {
      path: ParameterMatrices(leaf.shape, by_path.get(path))
      for path, leaf in selected.items()
    }
    self._dense = [path for path in selected if path not in by_path]
    self._bare = dataclasses.replace(plan, weights=())

  def factors(
    self, leaves: types.SelectedParameters, example: types.Features
  ) -> Factors:
    """Factors of the gradient of one example; traceable.

    Args:
      leaves: all parameters by path.
      example: features of one example.
    """

    def loss(dense, slots):
      [value] = factored_projection.evaluate(
        self._bare,
        self._traced.arguments({**leaves, **dense}, example),
        slots=slots,
        probe=None,
        packed=_nothing_packed(self._bare),
        evaluation=None,
      )
      return value

    dense = {path: leaves[path] for path in self._dense}
    slots: gradient_collectors.Slots = {}
    for weight in self._factored:
      empty = gradient_collectors.empty_slots(weight)
      slots |= {
        str(site.number): slot
        for site, slot in zip(weight.sites, empty, strict=True)
      }
    gradients, values = jax.grad(loss, argnums=(0, 1))(dense, slots)
    found: Factors = {
      path: (jnp.ones((1, 1, 1)), gradient.reshape(1, 1, -1))
      for path, gradient in gradients.items()
    }
    for weight in self._factored:
      own = [values[str(site.number)] for site in weight.sites]
      found[weight.path] = gradient_contraction.join_factors(weight, own)
    return found


def _nothing_packed(scope: projection_plan.Scope) -> dict[str, Any]:
  """The place of a packed basis where there is none."""
  return {
    'scopes': {
      str(number): _nothing_packed(inner)
      for number, inner in scope.scopes.items()
    }
  }
