"""A weight on its way through a loss: rearranged, used, and settled at last.

A *view* is a value that is a weight up to the order of its axes, its shape and
its dtype; a *use* is an equation that takes a view and may become a site.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax.numpy as jnp

from influence_core.projection import (
  plan as projection_plan,
  site_rules,
  weight_sites,
)

# Equations that give their only operand in another shape of the same size.
_RESHAPES = frozenset({'reshape', 'squeeze', 'broadcast_in_dim', 'expand_dims'})
_COPIES = frozenset({'convert_element_type', 'copy', 'copy_p'})


@dataclasses.dataclass(frozen=True)
class Use:
  """An equation that may become a site of a weight.

  Attributes:
    equation: of a jaxpr.
    position: of the weight among its operands.
    view: that operand.
    place: notes the site in the scope that the equation is in.
  """

  equation: Any
  position: int
  view: 'View'
  place: Callable[[projection_plan.Site], None]


@dataclasses.dataclass
class TrackedWeight:
  """A parameter, or its slice in a scan, on its way through a scope.

  Attributes:
    path: of the parameter.
    level: scans that it was sliced by.
    shape: of the slice.
    arrival: how it was rearranged before each of these scans.
    uses: that were found so far.
    num_scans: scans that slice it once more.
  """

  path: str
  level: int
  shape: tuple[int, ...]
  arrival: tuple[projection_plan.Rearrangement, ...] = ()
  uses: list[Use] = dataclasses.field(default_factory=list)
  num_scans: int = 0

  @property
  def key(self) -> tuple[str, int]:
    return self.path, self.level


@dataclasses.dataclass(frozen=True)
class View:
  """A value that is a tracked weight up to its arrangement and dtype.

  Attributes:
    weight: which.
    rearrangement: steps from the weight to the value.
    lengths: of scans whose every step uses it whole.
  """

  weight: TrackedWeight
  rearrangement: projection_plan.Rearrangement = ()
  lengths: tuple[int, ...] = ()

  def then(self, *step: tuple[str, tuple[int, ...]]) -> 'View':
    return dataclasses.replace(self, rearrangement=(*self.rearrangement, *step))


def rearrange(equation: Any, view: View) -> View | None:
  """The output as a view, where the equation only rearranges its operand."""
  if len(equation.invars) != 1 or len(equation.outvars) != 1:
    return None
  operand, output = equation.invars[0].aval, equation.outvars[0].aval
  if operand.size != output.size:
    return None
  match equation.primitive.name:
    case 'transpose':
      return view.then(('transpose', equation.params['permutation']))
    case 'reshape' if equation.params['dimensions'] is not None:
      return None
    case name if name in _RESHAPES:
      return view.then(('reshape', output.shape))
    case name if name in _COPIES and jnp.issubdtype(output.dtype, jnp.floating):
      return view
  return None


def shared_arrangement(
  uses: Sequence[Use],
) -> tuple[projection_plan.Rearrangement | None, Sequence[Any]]:
  """One arrangement of a weight that suits all its sites.

  What the sites' rearrangements begin with in common is applied to the stored
  weight; what remains may only permute axes.

  Returns:
    What is done to the weight, and rules whose layouts are all those of the
    first one; None and no rules where there is no such arrangement.
  """
  chains = [use.view.rearrangement for use in uses]
  shared = 0
  while all(len(chain) > shared for chain in chains) and (
    len({chain[shared] for chain in chains}) == 1
  ):
    shared += 1
  rules = []
  for use, chain in zip(uses, chains, strict=True):
    axes = tuple(range(use.equation.invars[use.position].aval.ndim))
    for step, permutation in chain[shared:]:
      if step != 'transpose':
        return None, ()
      axes = tuple(axes[axis] for axis in permutation)
    rules.append(site_rules.site_rule(use.equation, use.position, axes))
  layouts = [rule.layout if rule else None for rule in rules]
  first = layouts[0]
  if first is None or any(
    layout not in (first, first.transposed()) for layout in layouts
  ):
    return None, ()
  return chains[0][:shared], rules


def layout_with_long_rows(rules: Sequence[Any]) -> weight_sites.Layout:
  """A layout with no fewer rows than columns, so that blocks are squarer.

  A table that is only looked up keeps its entries as rows.
  """
  layout = rules[0].layout
  _, rows, columns = layout.sizes()
  if all(isinstance(rule, weight_sites.Lookup) for rule in rules):
    return layout
  return layout if rows >= columns else layout.transposed()
