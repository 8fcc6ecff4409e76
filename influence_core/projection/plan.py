"""What is known of the parameters in a traced loss.

`loss_analysis` makes a plan from a loss, `packing` arranges a basis for
it, and `factored_projection` evaluates the loss by it.

A parameter used by sites alone (see `weight_sites`) is *factored*: its
per-example gradient is never formed as a whole. Any other one is *dense*: its
per-example gradient comes from automatic differentiation, for that parameter
alone. Both give the same projections.
"""

from collections.abc import Iterator
import dataclasses
import math

import jax
from jax.extend import core as jax_core

from influence_core.projection import weight_sites

# Steps from one arrangement of an array to another: ('transpose', permutation)
# or ('reshape', shape).
Rearrangement = tuple[tuple[str, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Site:
  """One use of a factored weight.

  Attributes:
    number: identifies the site in its plan.
    rule: the operation.
    weight_position: which operand of the equation the weight is.
    lengths: lengths of the scans between the weight's owner and the site; it
      is used once in each of their steps.
    data: shape and dtype of what it hands on of its input.
    output: shape and dtype of the output.
  """

  number: int
  rule: weight_sites.SiteRule
  weight_position: int
  lengths: tuple[int, ...]
  data: jax.ShapeDtypeStruct
  output: jax.ShapeDtypeStruct

  @property
  def num_positions(self) -> int:
    """Terms of the sum that makes up the gradient of one example."""
    return math.prod(self.lengths) * self.rule.num_positions


@dataclasses.dataclass(frozen=True)
class Weight:
  """A selected parameter, or one scan step's slice of it: a dense one.

  Attributes:
    path: parameter path.
    input_number: which input of the scope it is.
    shape: shape in the scope that owns it.
    rearrangements: from the parameter to the weight that the sites use, one
      for each scope on the way; a scan takes slices along the first axis of
      what the one before gives.
  """

  path: str
  input_number: int
  shape: tuple[int, ...]
  rearrangements: tuple[Rearrangement, ...]


@dataclasses.dataclass(frozen=True)
class FactoredWeight(Weight):
  """A weight that is used by sites alone.

  Attributes:
    layout: the weight as matrices.
    sites: its uses.
  """

  layout: weight_sites.Layout
  sites: tuple[Site, ...]

  @property
  def num_positions(self) -> int:
    """Bound on the rank of the gradient of one example."""
    return sum(site.num_positions for site in self.sites)

  @property
  def num_lookups(self) -> int:
    """How many of the sites are lookups."""
    return sum(
      isinstance(site.rule, weight_sites.Lookup) for site in self.sites
    )


@dataclasses.dataclass(frozen=True)
class Scope:
  """A traced function and what is known of the parameters in it.

  Attributes:
    jaxpr: the function.
    weights: the parameters it owns: those of the loss in the outermost scope,
      the slices of stacked parameters in the body of a scan. Parameters that
      are not used are left out.
    sites: by equation number.
    scopes: the functions called inside, by equation number; only those that
      parameters enter.
  """

  jaxpr: jax_core.ClosedJaxpr
  weights: tuple[Weight, ...]
  sites: dict[int, Site]
  scopes: dict[int, 'Scope']

  @property
  def places(self) -> dict[int, str]:
    """Place of each function inside among them, by its equation number.

    Trees of arrays have these for keys: where features have another shape,
    there may be other equations between the same functions.
    """
    return {number: str(place) for place, number in enumerate(self.scopes)}

  @property
  def factored(self) -> tuple[FactoredWeight, ...]:
    """Weights of this scope that have sites."""
    return tuple(
      weight for weight in self.weights if isinstance(weight, FactoredWeight)
    )

  @property
  def dense(self) -> tuple[Weight, ...]:
    """Weights of this scope without."""
    return tuple(
      weight
      for weight in self.weights
      if not isinstance(weight, FactoredWeight)
    )

  def all_weights(self) -> Iterator[Weight]:
    """Weights of this scope and of all inside it."""
    yield from self.weights
    for scope in self.scopes.values():
      yield from scope.all_weights()

  def outer_sites(self) -> list[Site]:
    """Sites in this scope and inside it whose weights are owned outside."""
    own = {site.number for weight in self.factored for site in weight.sites}
    sites = list(self.sites.values())
    for scope in self.scopes.values():
      sites.extend(scope.outer_sites())
    return [site for site in sites if site.number not in own]
