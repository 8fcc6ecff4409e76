"""Collectors that compute something of the gradient of each weight by itself.

Backward, as soon as the factors of a weight's gradient are there, a *statistic*
of them is computed and becomes the cotangent of zeros that belong to that
weight; the factors are then forgotten. In a scan over layers both the zeros and
what the statistic needs are sliced, so that what is held at a time is one
layer's.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from influence_core.projection import (
  collectors as gradient_collectors,
  contraction as gradient_contraction,
  plan as projection_plan,
  weight_sites,
)
from influence_core.subspaces import matrix_gradients

# (path, gradient of one example, constants) -> pytree of [matrix, ...] float32
# arrays; an empty one where nothing is asked of a weight.
Statistic = Callable[[str, matrix_gradients.MatrixGradient, Any], Any]


@dataclasses.dataclass(frozen=True)
class LayerCollectors:
  """Sends a statistic of each weight's gradient to zeros of its own.

  What a scope is given: (zeros, constants) by path, in `given['weights']`.

  Attributes:
    statistic: see there.
    weight: [], 0 where the example does not count: its inputs are zero then;
      None where all count.
  """

  statistic: Statistic
  weight: jax.Array | None = None

  def collect(
    self,
    scope: projection_plan.Scope,
    inputs: Sequence[jax.Array],
    probe: None,
    given: Mapping[str, Any],
  ) -> tuple[list[jax.Array], gradient_collectors.Slots]:
    """See `collectors.Evaluation`."""
    del probe
    inputs = list(inputs)
    slots: gradient_collectors.Slots = {}
    for weight in scope.weights:
      own = given['weights'][weight.path]
      if isinstance(weight, projection_plan.FactoredWeight):
        empty = gradient_collectors.empty_slots(weight)
        collected = self._collect(weight, empty, *own)
        slots |= gradient_collectors.slots_by_site(weight, collected)
      else:
        number = weight.input_number
        inputs[number] = self._collect(weight, inputs[number], *own)
    return inputs, slots

  def _collect(self, weight, values, zeros, constants):
    """`values`, whose cotangents reach the zeros."""

    def own(values, example_weight):
      if example_weight is None:
        return values
      # Or those of all examples, which are the same, would be one to `vmap`,
      # which would add up their cotangents before they come here.
      return jax.tree.map(
        lambda leaf: leaf + (0 * example_weight).astype(leaf.dtype), values
      )

    @jax.custom_vjp
    def collector(zeros, constants, values, example_weight):
      del zeros, constants
      return own(values, example_weight)

    def forward(zeros, constants, values, example_weight):
      del zeros
      return own(values, example_weight), (constants, example_weight)

    def backward(residuals, cotangents):
      constants, example_weight = residuals
      gradient = read_gradient(weight, cotangents)
      if example_weight is not None and gradient.left is not None:
        gradient = gradient._replace(left=gradient.left * example_weight)
      found = self.statistic(weight.path, gradient, constants)
      return found, None, None, None

    collector.defvjp(forward, backward)
    return collector(zeros, constants, values, self.weight)


def read_gradient(
  weight: projection_plan.Weight, cotangents: Any
) -> matrix_gradients.MatrixGradient:
  """The gradient of a weight.

  Args:
    weight: of a scope.
    cotangents: `SiteValues` of each of its sites; the array of its gradient
      where it is not factored.
  """
  if not isinstance(weight, projection_plan.FactoredWeight):
    # Its last axis makes the columns.
    last = weight.shape[-1] if weight.shape else 1
    return matrix_gradients.MatrixGradient(
      formed=cotangents.reshape(1, -1, last)
    )
  products, lookups = [], []
  for site, values in zip(weight.sites, cotangents, strict=True):
    is_lookup = isinstance(site.rule, weight_sites.Lookup)
    if is_lookup and site.rule.layout == weight.layout:
      lookups.append(_looked_up(site, values))
    else:
      products.append(gradient_contraction.site_factors(weight, site, values))
  gradient = matrix_gradients.MatrixGradient()
  if products:
    left, right = _joined(products)
    gradient = gradient._replace(left=left, right=right)
  if lookups:
    numbers, right = _joined(lookups)
    gradient = gradient._replace(numbers=numbers, looked_up=right)
  return gradient


def _looked_up(
  site: projection_plan.Site, values: gradient_contraction.SiteValues
) -> tuple[jax.Array, jax.Array]:
  """Numbers [1, position] of rows, and cotangents [1, position, column]."""
  num_rows = site.rule.layout.shape[0]
  numbers = site.rule.row_numbers(values.data)  # type: ignore[union-attr]
  is_row = (numbers >= 0) & (numbers < num_rows)
  numbers = jnp.where(is_row, numbers, num_rows)
  return numbers[None], values.cotangent.reshape(1, len(numbers), -1)


def _joined(parts) -> tuple[jax.Array, jax.Array]:
  """The positions of all sites."""
  one, other = (
    jnp.concatenate(arrays, axis=1) for arrays in zip(*parts, strict=True)
  )
  return one, other
