"""Finds where a loss uses each parameter: from a traced loss to a plan.

Every selected parameter is followed through casts, transposes and reshapes,
calls, checkpoints and scans, to the equations that use it. Where they are all
sites the parameter is factored, else dense. A parameter that a scan over layers
takes slice by slice belongs to the body of the scan, so that what is formed at
a time is one layer's.
"""

from collections.abc import Mapping, Sequence
import dataclasses

import jax
from jax.extend import core as jax_core

from influence_core.projection import (
  plan as projection_plan,
  site_rules,
  weight_sites,
  weight_views,
)
from influence_core.projection.weight_views import TrackedWeight, View

# Equations that call another traced function.
CALLS = frozenset({'jit', 'pjit', 'closed_call', 'core_call'})
CHECKPOINTS = frozenset({'checkpoint', 'remat', 'remat2'})


def inner_jaxpr(equation: jax_core.JaxprEqn) -> jax_core.ClosedJaxpr:
  """The function that a call, checkpoint or scan evaluates."""
  name = 'call_jaxpr' if 'call_jaxpr' in equation.params else 'jaxpr'
  jaxpr = equation.params[name]
  if isinstance(jaxpr, jax_core.ClosedJaxpr):
    return jaxpr
  return jax_core.ClosedJaxpr(jaxpr, ())


def make_plan(
  jaxpr: jax_core.ClosedJaxpr, paths: Sequence[str]
) -> projection_plan.Scope:
  """The plan of a loss whose first inputs are the parameters at `paths`."""
  dense: set[tuple[str, int]] = set()
  while True:
    # Only after a whole walk is it known whether a parameter can be factored,
    # and one that cannot be is data to the others.
    analysis = _Analysis(dense)
    owned = {
      number: TrackedWeight(path, 0, jaxpr.jaxpr.invars[number].aval.shape)
      for number, path in enumerate(paths)
    }
    scope = analysis.analyse(jaxpr, owned, {})
    if not analysis.conflicts:
      return scope
    dense |= analysis.conflicts


class _Analysis:
  """One walk over the traced loss, which follows each weight to its uses.

  A weight enters a scope as a *tracked* input. What only rearranges or converts
  it gives another *view* of it; what takes a view as one operand and data as
  the other is a *use*. When a scope ends, the uses of its weights are known,
  and each weight is settled: factored if its uses are sites that agree on one
  arrangement, dense else. So for

    h = x @ W.T          view of W (transposed), use
    y = h @ W            view of W itself, use: both agree, W is factored
    z = y + W.sum()      an equation that is no site: conflict, W is dense

  A conflict is found after uses were recorded, so the caller walks again with
  that weight dense from the start, until a walk has none. `level` counts the
  scans on the way: a stacked weight and its slice in a scan over layers are two
  weights, of which one is settled.
  """

  def __init__(self, dense: set[tuple[str, int]]):
    self._dense = dense
    self._num_sites = 0
    self.conflicts: set[tuple[str, int]] = set()

  def analyse(
    self,
    jaxpr: jax_core.ClosedJaxpr,
    owned: Mapping[int, TrackedWeight],
    views: Mapping[int, View],
  ) -> projection_plan.Scope:
    """Analyses a function that owns some of its inputs and views others."""
    inputs = dict(views)
    for number, weight in owned.items():
      if weight.key not in self._dense:
        inputs[number] = View(weight)
    sites: dict[int, projection_plan.Site] = {}
    scopes: dict[int, projection_plan.Scope] = {}
    for view in self._walk(jaxpr.jaxpr, inputs, sites, scopes):
      self._give_up(view)
    settled = [self._settle(weight, number) for number, weight in owned.items()]
    weights = tuple(weight for weight in settled if weight)
    return projection_plan.Scope(jaxpr, weights, sites, scopes)

  def _walk(self, jaxpr, inputs, sites, scopes) -> list[View | None]:
    """Follows views through `jaxpr`; returns its outputs that are views."""
    env = {jaxpr.invars[number]: view for number, view in inputs.items()}

    def view_of(atom):
      return None if isinstance(atom, jax_core.Literal) else env.get(atom)

    for number, equation in enumerate(jaxpr.eqns):
      views = {
        position: view
        for position, atom in enumerate(equation.invars)
        if (view := view_of(atom)) is not None
      }
      if views:
        outputs = self._visit(equation, number, views, sites, scopes)
        env |= {
          variable: view
          for variable, view in zip(equation.outvars, outputs, strict=False)
          if view is not None
        }
    return [view_of(atom) for atom in jaxpr.outvars]

  def _visit(self, equation, number, views, sites, scopes):
    """Records what an equation does with views; returns its output views."""
    name = equation.primitive.name
    moved = weight_views.rearrange(equation, next(iter(views.values())))
    if moved is not None:
      return [moved]
    if name in CALLS:
      jaxpr = inner_jaxpr(equation)
      scope = projection_plan.Scope(jaxpr, (), {}, {})
      scopes[number] = scope
      return self._walk(jaxpr.jaxpr, views, scope.sites, scope.scopes)
    if name in CHECKPOINTS:
      scopes[number] = self.analyse(inner_jaxpr(equation), {}, views)
    elif name == 'scan':
      scopes[number] = self._enter_scan(equation, views)
    elif len(views) == 1 and _is_site(equation, *views):
      [(position, view)] = views.items()

      def place(site):
        sites[number] = site

      view.weight.uses.append(weight_views.Use(equation, position, view, place))
    else:
      for view in views.values():
        self._give_up(view)
    return []

  def _enter_scan(self, equation, views) -> projection_plan.Scope:
    """Consts are used in each step; slices belong to the body."""
    num_consts = equation.params['num_consts']
    first_slice = num_consts + equation.params['num_carry']
    length = equation.params['length']
    consts, slices = {}, {}
    for position, view in views.items():
      if position < num_consts:
        lengths = (*view.lengths, length)
        consts[position] = dataclasses.replace(view, lengths=lengths)
      elif position >= first_slice and not view.lengths:
        view.weight.num_scans += 1
        slices[position] = TrackedWeight(
          view.weight.path,
          view.weight.level + 1,
          equation.invars[position].aval.shape[1:],
          (*view.weight.arrival, view.rearrangement),
        )
      else:
        self._give_up(view)
    return self.analyse(inner_jaxpr(equation), slices, consts)

  def _give_up(self, view: View | None) -> None:
    if view is not None:
      self.conflicts.add(view.weight.key)

  def _settle(
    self, weight: TrackedWeight, input_number: int
  ) -> projection_plan.Weight | None:
    """The plan of a weight whose uses are all known; None without any."""
    dense = projection_plan.Weight(
      weight.path, input_number, weight.shape, (*weight.arrival, ())
    )
    if weight.key in self._dense:
      return dense
    if weight.num_scans + bool(weight.uses) > 1:
      self.conflicts.add(weight.key)
    if weight.num_scans or not weight.uses:
      return None
    stored, rules = weight_views.shared_arrangement(weight.uses)
    if stored is None:
      self.conflicts.add(weight.key)
      return dense
    sites = []
    for use, rule in zip(weight.uses, rules, strict=True):
      site = projection_plan.Site(
        self._num_sites,
        rule,
        use.position,
        use.view.lengths,
        _slot_struct(use, rule),
        _struct(use.equation.outvars[0]),
      )
      self._num_sites += 1
      use.place(site)
      sites.append(site)
    return projection_plan.FactoredWeight(
      weight.path,
      input_number,
      weight.shape,
      (*weight.arrival, stored),
      weight_views.layout_with_long_rows(rules),
      tuple(sites),
    )


def _slot_struct(use, rule) -> jax.ShapeDtypeStruct:
  """What the site hands on of its input."""
  structs = [_struct(atom) for atom in use.equation.invars]
  data = structs[rule.data_position]
  others = [
    struct
    for number, struct in enumerate(structs)
    if number not in (rule.data_position, use.position)
  ]
  return jax.eval_shape(
    lambda data, others: weight_sites.slot_data(rule, data, others),
    data,
    others,
  )


def _struct(atom) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype)


def _is_site(equation, position: int) -> bool:
  axes = tuple(range(equation.invars[position].aval.ndim))
  return site_rules.site_rule(equation, position, axes) is not None
