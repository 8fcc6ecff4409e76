"""Per-example gradients in factored form, of every parameter.

Each parameter is read as a stack of matrices [batch, rows, columns], and the
gradient of an example as sum_t left[t] right[t]^T, as in `weight_sites`. The
slices that a scan over layers takes are matrices of the stack. A parameter
without such factors is a single row: left is 1, right its whole gradient.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import types
from influence_core.projection import (
  collectors as gradient_collectors,
  contraction as gradient_contraction,
  factored_projection,
  packing as basis_packing,
  plan as projection_plan,
  traced_loss,
)

# (left [batch, position, row], right [batch, position, column]) by path.
Factors = dict[str, tuple[jax.Array, jax.Array]]


@dataclasses.dataclass(frozen=True)
class ParameterMatrices:
  """How a parameter is read as a stack of matrices.

  Attributes:
    shape: of the parameter.
    weight: what the plan knows of it; None where the loss does not use it.
    lengths: of the scans that take slices of it.
  """

  shape: tuple[int, ...]
  weight: projection_plan.Weight | None = None
  lengths: tuple[int, ...] = ()

  @property
  def factored(self) -> projection_plan.FactoredWeight | None:
    """Its sites; None where the gradient is a single row."""
    is_factored = isinstance(self.weight, projection_plan.FactoredWeight)
    return self.weight if is_factored else None  # type: ignore[return-value]

  @property
  def is_lookup(self) -> bool:
    """Whether rows are looked up and no more, so that no two go together."""
    return self.factored is not None and (
      self.factored.num_lookups == len(self.factored.sites)
    )

  @property
  def has_lookup(self) -> bool:
    """Whether rows are looked up at some of its uses."""
    return self.factored is not None and self.factored.num_lookups > 0

  def to_matrices(self, arrays: jax.Array) -> jax.Array:
    """[count, *shape] as [count, batch, rows, columns]."""
    count = len(arrays)
    if self.weight is None:
      return arrays.reshape(count, 1, 1, -1)
    arranged = jnp.asarray(basis_packing.arrange(self.weight, arrays, jnp))
    stored_shape = arranged.shape[1 + len(self.lengths) :]
    slices = arranged.reshape(-1, count, *stored_shape)
    if self.factored is None:
      return slices.reshape(len(slices), count, 1, -1).swapaxes(0, 1)
    matrices = jax.vmap(self.factored.layout.as_matrices)(slices)
    return matrices.swapaxes(0, 1).reshape(count, -1, *matrices.shape[3:])

  def from_matrices(self, matrices: jax.Array) -> jax.Array:
    """The inverse, which is the transpose: entries only change places."""
    count = len(matrices)
    like = jax.ShapeDtypeStruct((count, *self.shape), matrices.dtype)
    [arrays] = jax.linear_transpose(self.to_matrices, like)(matrices)
    return arrays


class FactoredGradients:
  """Per-example gradients of a loss in factored form.

  Attributes:
    matrices: how each selected parameter is read, by path.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    selected: types.SelectedParameters,
    features: types.Features,
    one_hot: bool = True,
  ):
    """Traces the loss.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      selected: parameters that gradients are taken for, by path.
      features: pytree of [num_examples, ...] arrays, for their shapes.
      one_hot: whether rows that are looked up are given as inputs, and not by
        their numbers, [batch, position, 1].

    Raises:
      errors.InputError: The loss does not work on a single example.
    """
    self._traced = traced_loss.trace_loss(
      per_example_loss, params, tuple(selected), features
    )
    found = {
      weight.path: (weight, lengths)
      for weight, lengths in _weights(self._traced.plan)
    }
    self.matrices = {
      path: ParameterMatrices(leaf.shape, *found.get(path, ()))
      for path, leaf in selected.items()
    }
    self._bare = _without_weights(self._traced.plan)
    self._one_hot = one_hot

  def factors(
    self, leaves: types.SelectedParameters, example: types.Features
  ) -> tuple[jax.Array, Factors]:
    """The loss of one example, and factors of its gradient; traceable.

    Args:
      leaves: all parameters by path.
      example: features of one example.
    """

    def loss(dense, slots):
      [value] = factored_projection.evaluate(
        self._bare,
        self._traced.arguments({**leaves, **dense}, example),
        slots=slots,
        probe=None,
        packed=_nothing_packed(self._bare),
        evaluation=None,
      )
      return value

    dense = {
      path: leaves[path]
      for path, one in self.matrices.items()
      if one.factored is None
    }
    slots: gradient_collectors.Slots = {}
    for one in self.matrices.values():
      if one.factored is not None:
        slots |= _empty_slots(one.factored, one.lengths)
    value, (gradients, values) = jax.value_and_grad(loss, argnums=(0, 1))(
      dense, slots
    )
    return value, {
      path: self._factors_of(one, gradients.get(path), values)
      for path, one in self.matrices.items()
    }

  def _factors_of(
    self,
    matrices: ParameterMatrices,
    gradient: jax.Array | None,
    values: Mapping[str, gradient_contraction.SiteValues],
  ) -> tuple[jax.Array, jax.Array]:
    weight = matrices.factored
    if weight is None:
      assert gradient is not None
      return _row(matrices, gradient)
    if matrices.is_lookup and not self._one_hot:
      return _numbered(weight, values)
    return _joined(weight, matrices.lengths, values)


def _weights(
  scope: projection_plan.Scope, lengths: tuple[int, ...] = ()
) -> Iterator[tuple[projection_plan.Weight, tuple[int, ...]]]:
  """Weights of a scope and of all inside it, with the scans that slice them."""
  for weight in scope.weights:
    yield weight, lengths
  for number, inner in scope.scopes.items():
    equation = scope.jaxpr.jaxpr.eqns[number]
    is_scan = equation.primitive.name == 'scan'
    length = (equation.params['length'],) if is_scan else ()
    yield from _weights(inner, (*lengths, *length))


def _without_weights(scope: projection_plan.Scope) -> projection_plan.Scope:
  """The same, with all its sites belonging to weights outside."""
  scopes = {n: _without_weights(inner) for n, inner in scope.scopes.items()}
  return dataclasses.replace(scope, weights=(), scopes=scopes)


def _nothing_packed(scope: projection_plan.Scope) -> dict[str, Any]:
  """The place of a packed basis where there is none."""
  return {
    'scopes': {
      str(number): _nothing_packed(inner)
      for number, inner in scope.scopes.items()
    }
  }


def _empty_slots(
  weight: projection_plan.FactoredWeight, lengths: tuple[int, ...]
) -> gradient_collectors.Slots:
  """Slots of the sites of a weight, [*lengths, ...] each."""
  empty = gradient_collectors.empty_slots(weight)
  return {
    str(site.number): jax.tree.map(
      lambda leaf: jnp.zeros((*lengths, *leaf.shape), leaf.dtype), slot
    )
    for site, slot in zip(weight.sites, empty, strict=True)
  }


def _joined(
  weight: projection_plan.FactoredWeight,
  lengths: tuple[int, ...],
  values: Mapping[str, gradient_contraction.SiteValues],
) -> tuple[jax.Array, jax.Array]:
  """Factors of the gradient of all slices of a weight."""
  own = [values[str(site.number)] for site in weight.sites]
  if not lengths:
    return gradient_contraction.join_factors(weight, own)
  count = math.prod(lengths)
  flat = jax.tree.map(
    lambda leaf: leaf.reshape(count, *leaf.shape[len(lengths) :]), own
  )
  left, right = jax.vmap(
    lambda one: gradient_contraction.join_factors(weight, one)
  )(flat)
  return tuple(x.reshape(-1, *x.shape[2:]) for x in (left, right))  # type: ignore[return-value]


def _numbered(
  weight: projection_plan.FactoredWeight,
  values: Mapping[str, gradient_contraction.SiteValues],
) -> tuple[jax.Array, jax.Array]:
  """Numbers of the rows that were looked up, and cotangents of what was found.

  Numbers out of range have no gradient.
  """
  num_rows = weight.layout.sizes()[1]
  numbers, rights = [], []
  for site in weight.sites:
    value = values[str(site.number)]
    found = site.rule.row_numbers(value.data)  # type: ignore[union-attr]
    right = value.cotangent.reshape(len(found), -1)
    is_row = (found >= 0) & (found < num_rows)
    numbers.append(found.astype(jnp.float32))
    rights.append(jnp.where(is_row[:, None], right, 0))
  left = jnp.concatenate(numbers)[None, :, None]
  return left, jnp.concatenate(rights)[None]


def _row(
  matrices: ParameterMatrices, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Factors of a gradient that is there as a whole."""
  [right] = matrices.to_matrices(gradient[None])
  return jnp.ones((len(right), 1, 1)), right
