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

import jax
from jax.extend import core as jax_core

from influence_core.projection import (
  collectors as gradient_collectors,
  loss_analysis,
  packing as basis_packing,
  plan as projection_plan,
)


def evaluate(
  scope: projection_plan.Scope,
  inputs: Sequence[jax.Array],
  *,
  slots: gradient_collectors.Slots,
  probe: gradient_collectors.Probe | None,
  packed: Mapping,
  evaluation: gradient_collectors.Evaluation | None,
) -> list[jax.Array]:
  """Outputs of a scope, differentiable with respect to the probe.

  Args:
    scope: the plan of the function.
    inputs: its arguments.
    slots: slots of the sites inside that belong to weights outside, by number.
    probe: zeros; None where no scope owns a weight.
    packed: the basis for this scope.
    evaluation: settings; None where no scope owns a weight.
  """
  jaxpr = scope.jaxpr.jaxpr
  inputs, own_slots = _collect(scope, inputs, probe, packed, evaluation)
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
        packed=packed['scopes'][str(number)],
        evaluation=evaluation,
      )
    else:
      outputs = gradient_collectors.bind(equation, arguments)
    env |= zip(equation.outvars, outputs, strict=True)
  return [read(atom) for atom in jaxpr.outvars]


def _collect(
  scope, inputs, probe, packed, evaluation
) -> tuple[list[jax.Array], gradient_collectors.Slots]:
  """Inputs and slots whose cotangents reach the probe."""
  inputs = list(inputs)
  slots: gradient_collectors.Slots = {}
  if not scope.weights:
    return inputs, slots
  assert probe is not None
  assert evaluation is not None
  for weight in scope.factored:
    slots |= gradient_collectors.collect_factored(
      weight, probe, packed['factored'][weight.path], evaluation
    )
  groups = basis_packing.dense_groups(scope, evaluation.packing.group_of)
  for group, weights in groups.items():
    numbers = [weight.input_number for weight in weights]
    values = gradient_collectors.collect_dense(
      int(group),
      probe,
      packed['dense'][group],
      [inputs[number] for number in numbers],
      evaluation,
    )
    for number, value in zip(numbers, values, strict=True):
      inputs[number] = value
  return inputs, slots


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
