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
from typing import Any

import jax
from jax.extend import core as jax_core

from influence_core.projection import (
  collectors as gradient_collectors,
  loss_analysis,
  plan as projection_plan,
)


def evaluate(
  scope: projection_plan.Scope,
  inputs: Sequence[jax.Array],
  *,
  slots: gradient_collectors.Slots,
  probe: Any,
  given: Mapping,
  evaluation: gradient_collectors.Evaluation,
) -> list[jax.Array]:
  """Outputs of a scope, differentiable with respect to what collects.

  Args:
    scope: the plan of the function.
    inputs: its arguments.
    slots: slots of the sites inside that belong to weights outside, by number.
    probe: shared by all scopes; None where each weight has its own.
    given: what the collectors of this scope need, and for those inside it
      `given['scopes']`, by `places`; scans take slices of it.
    evaluation: places the collectors.
  """
  jaxpr = scope.jaxpr.jaxpr
  inputs, own_slots = evaluation.collect(scope, inputs, probe, given)
  slots = {**slots, **own_slots}
  env = dict(zip(jaxpr.constvars, scope.jaxpr.consts, strict=True))
  env |= zip(jaxpr.invars, inputs, strict=True)

  def read(atom):
    return atom.val if isinstance(atom, jax_core.Literal) else env[atom]

  for number, equation in enumerate(jaxpr.eqns):
    arguments = [read(atom) for atom in equation.invars]
    if number in scope.sites:
      outputs = [
        gradient_collectors.site_output(
          equation, scope.sites[number], arguments, slots
        )
      ]
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
        given=given['scopes'][scope.places[number]],
        evaluation=evaluation,
      )
    else:
      outputs = gradient_collectors.bind(equation, arguments)
    env |= zip(equation.outvars, outputs, strict=True)
  return [read(atom) for atom in jaxpr.outvars]


def _call(
  equation, scope, arguments, *, slots, probe, given, evaluation
) -> list[jax.Array]:
  """Evaluates a call, checkpoint or scan with what is inside."""

  def run(arguments, slots, probe, given):
    return evaluate(
      scope,
      arguments,
      slots=slots,
      probe=probe,
      given=given,
      evaluation=evaluation,
    )

  name = equation.primitive.name
  if name in loss_analysis.CALLS:
    return run(arguments, slots, probe, given)
  if name in loss_analysis.CHECKPOINTS:
    return jax.checkpoint(
      run,
      prevent_cse=equation.params['prevent_cse'],
      policy=equation.params['policy'],
    )(arguments, slots, probe, given)
  params = equation.params
  num_consts, num_carry = params['num_consts'], params['num_carry']
  consts = arguments[:num_consts]
  carry = arguments[num_consts : num_consts + num_carry]
  slices = arguments[num_consts + num_carry :]

  def step(carry, sliced):
    slices, slots, given = sliced
    outputs = run([*consts, *carry, *slices], slots, probe, given)
    return outputs[:num_carry], outputs[num_carry:]

  if scope.weights:
    # A scan over layers keeps what enters each of them and evaluates it again
    # in the backward pass, so that memory hardly grows with depth.
    step = jax.checkpoint(step, prevent_cse=False)
  carry, stacked = jax.lax.scan(
    step,
    carry,
    (slices, slots, given),
    length=params['length'],
    reverse=params['reverse'],
    unroll=params['unroll'],
  )
  return [*carry, *stacked]
