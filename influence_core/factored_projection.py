"""Projects one example's gradient without forming it: evaluation of a plan.

The traced loss is evaluated equation by equation and differentiated by JAX
with respect to one small array of zeros, the *probe*. Nothing depends on the
probe's value; custom derivatives send the projections to it instead:

* A site passes its input and its output's cotangent to two *slots* of its
  weight, and takes no derivative with respect to the weight.
* The weight's collector receives the slots of all its sites as cotangents,
  contracts them with the basis, and passes the result to the probe.
* The collector of the dense weights does the same with their gradients.

So projections add up in the backward pass through scans, checkpoints and
calls, each weight's share being computed as soon as its factors are there.
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import NamedTuple

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp

from influence_core import (
  basis_packing,
  gradient_contraction,
  loss_analysis,
  projection_plan,
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


def evaluate(
  scope: projection_plan.Scope,
  inputs: Sequence[jax.Array],
  *,
  slots: Slots,
  probe: Probe,
  packed: Mapping,
  evaluation: Evaluation,
) -> list[jax.Array]:
  """Outputs of a scope, differentiable with respect to the probe.

  Args:
    scope: the plan of the function.
    inputs: its arguments.
    slots: slots of the sites inside that belong to weights outside, by number.
    probe: zeros.
    packed: the basis for this scope.
    evaluation: settings.
  """
  jaxpr = scope.jaxpr.jaxpr
  inputs = list(inputs)
  slots = dict(slots)
  for weight in scope.factored:
    slots |= _collect_factored(
      weight, probe, packed['factored'][weight.path], evaluation
    )
  groups = basis_packing.dense_groups(scope, evaluation.packing.group_of)
  for group, weights in groups.items():
    numbers = [weight.input_number for weight in weights]
    values = _collect_dense(
      int(group),
      probe,
      packed['dense'][group],
      [inputs[number] for number in numbers],
      evaluation,
    )
    for number, value in zip(numbers, values, strict=True):
      inputs[number] = value
  env = dict(zip(jaxpr.constvars, scope.jaxpr.consts, strict=True))
  env |= zip(jaxpr.invars, inputs, strict=True)

  def read(atom):
    return atom.val if isinstance(atom, jax_core.Literal) else env[atom]

  for number, equation in enumerate(jaxpr.eqns):
    arguments = [read(atom) for atom in equation.invars]
    if number in scope.sites:
      outputs = [_site(equation, scope.sites[number], arguments, slots)]
    elif number in scope.scopes:
      outputs = _call(
        equation,
        scope.scopes[number],
        arguments,
        slots={
          str(site.number): slots[str(site.number)]
          for site in scope.scopes[number].outer_sites()
        },
        probe=probe,
        packed=packed['scopes'][str(number)],
        evaluation=evaluation,
      )
    else:
      outputs = bind(equation, arguments)
    env |= zip(equation.outvars, outputs, strict=True)
  return [read(atom) for atom in jaxpr.outvars]


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


def _call(
  equation, scope, arguments, *, slots, probe, packed, evaluation
) -> list[jax.Array]:
  """Evaluates a call, checkpoint or scan with what is inside."""

  def run(arguments, slots, probe, packed):
    return evaluate(
      scope,
      arguments,
      slots=slots,
      probe=probe,
      packed=packed,
      evaluation=evaluation,
    )

  name = equation.primitive.name
  if name in loss_analysis.CALLS:
    return run(arguments, slots, probe, packed)
  if name in loss_analysis.CHECKPOINTS:
    return jax.checkpoint(
      run,
      prevent_cse=equation.params['prevent_cse'],
      policy=equation.params['policy'],
    )(arguments, slots, probe, packed)
  params = equation.params
  num_consts, num_carry = params['num_consts'], params['num_carry']
  consts = arguments[:num_consts]
  carry = arguments[num_consts : num_consts + num_carry]
  slices = arguments[num_consts + num_carry :]

  def step(carry, sliced):
    slices, slots, packed = sliced
    outputs = run([*consts, *carry, *slices], slots, probe, packed)
    return outputs[:num_carry], outputs[num_carry:]

  if scope.weights:
    # A scan over layers keeps what enters each of them and evaluates it again
    # in the backward pass, so that memory hardly grows with depth.
    step = jax.checkpoint(step, prevent_cse=False)
  carry, stacked = jax.lax.scan(
    step,
    carry,
    (slices, slots, packed),
    length=params['length'],
    reverse=params['reverse'],
    unroll=params['unroll'],
  )
  return [*carry, *stacked]


def _site(equation, site: projection_plan.Site, arguments, slots: Slots):
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
  def site_output(data, weight, slot):
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

  site_output.defvjp(forward, backward)
  return site_output(data, weight, slots[str(site.number)])


def _slot_dtype(dtype):
  """Cotangents are floating; row numbers are exact in float32."""
  return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32


def _collect_factored(
  weight: projection_plan.FactoredWeight, probe, vectors, evaluation: Evaluation
) -> Slots:
  """Slots for the sites of a weight; their cotangents reach the probe."""
  group = evaluation.packing.group_of[weight.path]
  shape = evaluation.packing.vectors_shape(weight, evaluation.projection_dim)
  block_positions = evaluation.packing.lookup_positions(
    weight, evaluation.projection_dim
  )

  def empty_slots():
    return [
      gradient_contraction.SiteValues(
        jnp.zeros(
          (*site.lengths, *site.data.shape), _slot_dtype(site.data.dtype)
        ),
        jnp.zeros((*site.lengths, *site.output.shape), site.output.dtype),
      )
      for site in weight.sites
    ]

  @jax.custom_vjp
  def collector(probe, vectors):
    del probe, vectors
    return empty_slots()

  def forward(probe, vectors):
    del probe
    return empty_slots(), vectors

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


def _collect_dense(
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
