"""Collectors that contract gradients with a packed basis.

The probe is an array of zeros for the whole model, to which the collectors of
all weights add; see `collectors`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from influence_core.projection import (
  collectors as gradient_collectors,
  contraction as gradient_contraction,
  packing as basis_packing,
  plan as projection_plan,
)


class Probe(NamedTuple):
  """What the backward pass adds up for an example.

  Attributes:
    projections: [num_groups, projection_dim] float32.
    squared_norms: [num_groups] float32.
  """

  projections: jax.Array
  squared_norms: jax.Array


@dataclasses.dataclass(frozen=True)
class BasisCollectors:
  """Sends projections on a basis to the probe.

  What a scope is given: its part of the packed basis.

  Attributes:
    projection_dim: number of eigenvectors.
    packing: how the basis was packed.
    device_axis: mapped axis of the devices that share the basis, if they do.
  """

  projection_dim: int
  packing: basis_packing.Packing
  device_axis: str | None = None

  def zero_probe(self) -> Probe:
    """Where nothing was collected yet."""
    num_groups = self.packing.num_groups
    return Probe(
      jnp.zeros((num_groups, self.projection_dim)), jnp.zeros(num_groups)
    )

  def collect(
    self,
    scope: projection_plan.Scope,
    inputs: Sequence[jax.Array],
    probe: Probe,
    given: Mapping[str, Any],
  ) -> tuple[list[jax.Array], gradient_collectors.Slots]:
    """See `collectors.Evaluation`."""
    inputs = list(inputs)
    slots: gradient_collectors.Slots = {}
    if not scope.weights:
      return inputs, slots
    for weight in scope.factored:
      collected = self._collect_factored(
        weight, probe, given['factored'][weight.path]
      )
      slots |= gradient_collectors.slots_by_site(weight, collected)
    groups = basis_packing.dense_groups(scope, self.packing.group_of)
    for group, weights in groups.items():
      numbers = [weight.input_number for weight in weights]
      values = [inputs[number] for number in numbers]
      values = self._collect_dense(
        int(group), probe, given['dense'][group], values
      )
      for number, value in zip(numbers, values, strict=True):
        inputs[number] = value
    return inputs, slots

  def _collect_factored(self, weight, probe, vectors):
    """Slots for the sites of a weight; their cotangents reach the probe."""
    group = self.packing.group_of[weight.path]
    shape = self.packing.vectors_shape(weight, self.projection_dim)
    block_positions = self.packing.lookup_positions(weight, self.projection_dim)

    @jax.custom_vjp
    def collector(probe, vectors):
      del probe, vectors
      return gradient_collectors.empty_slots(weight)

    def forward(probe, vectors):
      del probe
      return gradient_collectors.empty_slots(weight), vectors

    def backward(vectors, values):
      contribution = gradient_contraction.contract_weight(
        weight,
        vectors.reshape(shape),
        values,
        projection_dim=self.projection_dim,
        block_positions=block_positions,
        device_axis=self.device_axis,
      )
      return self._to_group(group, contribution), None

    collector.defvjp(forward, backward)
    return collector(probe, vectors)

  def _collect_dense(self, group: int, probe, vectors, values):
    """The values of dense weights; their gradients reach the probe."""

    @jax.custom_vjp
    def collector(probe, vectors, values):
      del probe, vectors
      return values

    def forward(probe, vectors, values):
      del probe
      return values, vectors

    def backward(vectors, gradients):
      contribution = gradient_contraction.contract_dense(
        vectors, gradients, self.device_axis
      )
      return self._to_group(group, contribution), None, None

    collector.defvjp(forward, backward)
    return collector(probe, vectors, values)

  def _to_group(
    self, group: int, contribution: gradient_contraction.Contribution
  ) -> Probe:
    """A probe's cotangent with a contribution in one group."""
    zero = self.zero_probe()
    return Probe(
      zero.projections.at[group].set(contribution.projections),
      zero.squared_norms.at[group].set(contribution.squared_norm),
    )
