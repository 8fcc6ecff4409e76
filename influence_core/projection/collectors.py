"""Custom derivatives that send projections of gradients to a probe.

Forward, nothing happens: slots are zeros, sites compute their output. Backward,
for a weight W with a site y = x @ W:

    probe <- collector <- slot (x, dy) <- site <- dy
      sum     x, dy                        of the loss
      over    contracted with
    weights   the basis of W

The site has `slot` as an argument that it does not use, and answers the
cotangent dy of its output with (x, dy) as the slot's own cotangent. The slot
came out of the collector, whose only other input is the probe: so JAX hands
(x, dy) to the collector's backward rule, which contracts them with the basis,
and returns projections and squared norm as the cotangent of the probe. JAX adds
up the probe's cotangents over all collectors.

See `factored_projection`, which places them in the evaluation of a loss.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp

from influence_core.projection import (
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
class Evaluation:
  """Settings of an evaluation.

  Attributes:
    projection_dim: number of eigenvectors.
    packing: how the basis was packed.
    device_axis: mapped axis of the devices that share the basis, if they do.
  """

  projection_dim: int
  packing: basis_packing.Packing
  device_axis: str | None = None

  def zero_probe(self) -> Probe:
    num_groups = self.packing.num_groups
    return Probe(
      jnp.zeros((num_groups, self.projection_dim)), jnp.zeros(num_groups)
    )

  def to_group(
    self, group: int, contribution: gradient_contraction.Contribution
  ) -> Probe:
    """A probe's cotangent with a contribution in one group."""
    zero = self.zero_probe()
    return Probe(
      zero.projections.at[group].set(contribution.projections),
      zero.squared_norms.at[group].set(contribution.squared_norm),
    )


Slots = dict[str, gradient_contraction.SiteValues]


def bind(
  equation: jax_core.JaxprEqn, arguments: Sequence[jax.Array]
) -> list[jax.Array]:
  """The outputs of a single equation."""
  values = {
    atom: value
    for atom, value in zip(equation.invars, arguments, strict=True)
    if not isinstance(atom, jax_core.Literal)
  }
  jaxpr = jax_core.Jaxpr(
    (), list(values), equation.outvars, [equation], equation.effects
  )
  return jax_core.jaxpr_as_fun(jax_core.ClosedJaxpr(jaxpr, ()))(
    *values.values()
  )


def site_output(equation, site: projection_plan.Site, arguments, slots: Slots):
  """Output of a site, which passes its factors to the site's slots."""
  data = arguments[site.rule.data_position]
  weight = arguments[site.weight_position]

  def apply(data, weight):
    operands = [weight, weight]
    operands[site.rule.data_position] = data
    operands[site.weight_position] = weight
    [output] = bind(equation, operands)
    return output

  @jax.custom_vjp
  def output(data, weight, slot):
    del slot
    return apply(data, weight)

  def forward(data, weight, slot):
    del slot
    return apply(data, weight), (data, weight)

  def backward(residuals, cotangent):
    data, weight = residuals
    if jnp.issubdtype(data.dtype, jnp.floating):
      _, pull_back = jax.vjp(lambda data: apply(data, weight), data)
      [data_cotangent] = pull_back(cotangent)
    else:
      data_cotangent = None
    values = gradient_contraction.SiteValues(
      data.astype(_slot_dtype(data.dtype)), cotangent
    )
    return data_cotangent, None, values

  output.defvjp(forward, backward)
  return output(data, weight, slots[str(site.number)])


def _slot_dtype(dtype):
  """Cotangents are floating; row numbers are exact in float32."""
  return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def empty_slots(
  weight: projection_plan.FactoredWeight,
) -> list[gradient_contraction.SiteValues]:
  """A slot for each site of a weight, whose cotangents are its factors."""
  return [
    gradient_contraction.SiteValues(
      jnp.zeros(
        (*site.lengths, *site.data.shape), _slot_dtype(site.data.dtype)
      ),
      jnp.zeros((*site.lengths, *site.output.shape), site.output.dtype),
    )
    for site in weight.sites
  ]


def collect_factored(
  weight: projection_plan.FactoredWeight, probe, vectors, evaluation: Evaluation
) -> Slots:
  """Slots for the sites of a weight; their cotangents reach the probe."""
  group = evaluation.packing.group_of[weight.path]
  shape = evaluation.packing.vectors_shape(weight, evaluation.projection_dim)
  block_positions = evaluation.packing.lookup_positions(
    weight, evaluation.projection_dim
  )

  @jax.custom_vjp
  def collector(probe, vectors):
    del probe, vectors
    return empty_slots(weight)

  def forward(probe, vectors):
    del probe
    return empty_slots(weight), vectors

  def backward(vectors, values):
    contribution = gradient_contraction.contract_weight(
      weight,
      vectors.reshape(shape),
      values,
      projection_dim=evaluation.projection_dim,
      block_positions=block_positions,
      device_axis=evaluation.device_axis,
    )
    return evaluation.to_group(group, contribution), None

  collector.defvjp(forward, backward)
  collected = collector(probe, vectors)
  return {
    str(site.number): slot
    for site, slot in zip(weight.sites, collected, strict=True)
  }


def collect_dense(
  group: int, probe, vectors, values, evaluation: Evaluation
) -> list[jax.Array]:
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
      vectors, gradients, evaluation.device_axis
    )
    return evaluation.to_group(group, contribution), None, None

  collector.defvjp(forward, backward)
  return collector(probe, vectors, values)
