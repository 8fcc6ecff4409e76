"""Finds the last layer of a model in its traced loss.

A layer is an equation that multiplies what depends on the example with what
depends on parameters alone, or convolves them. So it does not matter what is
done to a parameter before: it may be cast, tied, merged with an adapter,
divided by its norm, or used in a penalty besides.
"""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import jax
from jax.extend import core as jax_core

from influence_core.projection import (
  loss_analysis,
  plan as projection_plan,
  site_rules,
)

_PRODUCTS = ('dot_general', 'conv_general_dilated')


class Origin(NamedTuple):
  """What a value depends on.

  Attributes:
    example: whether on the example.
    parameters: whether on parameters.
  """

  example: bool
  parameters: bool

  def plus(self, other: 'Origin') -> 'Origin':
    return Origin(*(a or b for a, b in zip(self, other, strict=True)))


_CONSTANT = Origin(False, False)


@dataclasses.dataclass(frozen=True)
class LastLayer:
  """The last layer.

  Attributes:
    scope: the traced function, or one inside, with no other site.
    site: the layer in it.
    lengths: of the scans around it.
  """

  scope: projection_plan.Scope
  site: projection_plan.Site
  lengths: tuple[int, ...] = ()


def find(
  jaxpr: jax_core.ClosedJaxpr, origins: Sequence[Origin]
) -> LastLayer | None:
  """The last layer of a function; None without any.

  In the bodies of loops without a known length and of conditions none is looked
  for.

  Args:
    jaxpr: the function.
    origins: of its inputs.
  """
  return _walk(jaxpr, origins)[1]


def _walk(
  jaxpr: jax_core.ClosedJaxpr, origins: Sequence[Origin]
) -> tuple[list[Origin], LastLayer | None]:
  """Origins of the outputs, and the last layer."""
  last: LastLayer | None = None
  known = dict(zip(jaxpr.jaxpr.invars, origins, strict=True))

  def origin_of(atom) -> Origin:
    is_literal = isinstance(atom, jax_core.Literal)
    return _CONSTANT if is_literal else known.get(atom, _CONSTANT)

  for number, equation in enumerate(jaxpr.jaxpr.eqns):
    inputs = [origin_of(atom) for atom in equation.invars]
    outputs, inner = _visit(equation, inputs)
    known |= zip(equation.outvars, outputs, strict=True)
    site = _site(equation, inputs)
    if site is not None:
      last = LastLayer(
        projection_plan.Scope(jaxpr, (), {number: site}, {}), site
      )
    elif inner is not None:
      is_scan = equation.primitive.name == 'scan'
      length = (equation.params['length'],) if is_scan else ()
      last = LastLayer(
        projection_plan.Scope(jaxpr, (), {}, {number: inner.scope}),
        inner.site,
        (*length, *inner.lengths),
      )
  return [origin_of(atom) for atom in jaxpr.jaxpr.outvars], last


def _visit(
  equation: jax_core.JaxprEqn, inputs: list[Origin]
) -> tuple[list[Origin], LastLayer | None]:
  """Origins of the outputs of an equation, and the last layer inside it."""
  name = equation.primitive.name
  if name in loss_analysis.CALLS | loss_analysis.CHECKPOINTS:
    return _walk(loss_analysis.inner_jaxpr(equation), inputs)
  if name == 'scan':
    return _walk_scan(equation, inputs)
  total = _CONSTANT
  for origin in inputs:
    total = total.plus(origin)
  return [total] * len(equation.outvars), None


def _walk_scan(
  equation: jax_core.JaxprEqn, inputs: list[Origin]
) -> tuple[list[Origin], LastLayer | None]:
  """What is carried has the origins of all steps before."""
  first = equation.params['num_consts']
  stop = first + equation.params['num_carry']
  while True:
    outputs, last = _walk(loss_analysis.inner_jaxpr(equation), inputs)
    carried = [
      one.plus(other)
      for one, other in zip(
        inputs[first:stop], outputs[: stop - first], strict=True
      )
    ]
    if carried == inputs[first:stop]:
      return outputs, last
    inputs = [*inputs[:first], *carried, *inputs[stop:]]


def _site(
  equation: jax_core.JaxprEqn, inputs: list[Origin]
) -> projection_plan.Site | None:
  """The equation as a layer, if it is one."""
  if equation.primitive.name not in _PRODUCTS:
    return None
  for position, origin in enumerate(inputs):
    is_weight = origin == Origin(example=False, parameters=True)
    if not (is_weight and inputs[1 - position].example):
      continue
    weight = _struct(equation.invars[position])
    rule = site_rules.site_rule(equation, position, tuple(range(weight.ndim)))
    if rule is not None:
      return projection_plan.Site(
        0,
        rule,
        position,
        (),
        _struct(equation.invars[rule.data_position]),
        _struct(equation.outvars[0]),
      )
  return None


def _struct(atom) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)
