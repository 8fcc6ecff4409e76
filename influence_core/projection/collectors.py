"""Custom derivatives that send what is made of gradients to a probe.

Forward, nothing happens: slots are zeros, sites compute their output. Backward,
for a weight W with a site y = x @ W and the projection on a basis:

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

Here are sites and slots; `basis_collectors` has the collectors, and
`factored_projection` places both in the evaluation of a loss.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp

from influence_core.projection import (
  contraction as gradient_contraction,
  plan as projection_plan,
  weight_sites,
)

Slots = dict[str, gradient_contraction.SiteValues]


class Evaluation(Protocol):
  """Places the collectors of the weights of a scope."""

  def collect(
    self,
    scope: projection_plan.Scope,
    inputs: Sequence[jax.Array],
    probe: Any,
    given: Mapping[str, Any],
  ) -> tuple[list[jax.Array], Slots]:
    """Inputs and slots whose cotangents reach a collector.

    Args:
      scope: the plan of a function.
      inputs: its arguments.
      probe: see `factored_projection.evaluate`.
      given: see there.

    Returns:
      The inputs, and slots of the sites of the weights that the scope owns.
    """


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
  places = site.rule.data_position, site.weight_position

  def apply(data, weight, others):
    if isinstance(site.rule, weight_sites.RaggedMatmul):
      return site.rule.output(data, weight, *others)
    operands = list(others)
    for place, operand in sorted(zip(places, (data, weight), strict=True)):
      operands.insert(place, operand)
    [output] = bind(equation, operands)
    return output

  @jax.custom_vjp
  def output(data, weight, others, slot):
    del slot
    return apply(data, weight, others)

  def forward(data, weight, others, slot):
    del slot
    return apply(data, weight, others), (data, weight, others)

  def backward(residuals, cotangent):
    data, weight, others = residuals
    if jnp.issubdtype(data.dtype, jnp.floating):
      _, pull_back = jax.vjp(lambda data: apply(data, weight, others), data)
      [data_cotangent] = pull_back(cotangent)
    else:
      data_cotangent = None
    values = gradient_contraction.SiteValues(
      weight_sites.slot_data(site.rule, data, others), cotangent
    )
    return data_cotangent, None, None, values

  output.defvjp(forward, backward)
  others = [x for n, x in enumerate(arguments) if n not in places]
  data, weight = (arguments[place] for place in places)
  return output(data, weight, others, slots[str(site.number)])


def empty_slots(
  weight: projection_plan.FactoredWeight,
) -> list[gradient_contraction.SiteValues]:
  """A slot for each site of a weight, whose cotangents are its factors."""
  return [
    gradient_contraction.SiteValues(
      jnp.zeros((*site.lengths, *site.data.shape), site.data.dtype),
      jnp.zeros((*site.lengths, *site.output.shape), site.output.dtype),
    )
    for site in weight.sites
  ]


def slots_by_site(
  weight: projection_plan.FactoredWeight,
  slots: Sequence[gradient_contraction.SiteValues],
) -> Slots:
  """The slots of a weight by the numbers of its sites."""
  return {
    str(site.number): slot
    for site, slot in zip(weight.sites, slots, strict=True)
  }
