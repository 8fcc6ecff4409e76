"""Something of each weight's gradient, computed example by example.

Each parameter is read as a stack of matrices [matrix, row, column], and the
gradient of an example as in `matrix_gradients`. The slices that a scan over
layers takes are matrices of the stack. A parameter that is not used by sites
alone is a single matrix, whose gradient is formed.
"""

from collections.abc import Iterator, Mapping
import functools
from typing import Any

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp

from influence_core import types
from influence_core.devices import program as device_program
from influence_core.projection import (
  collectors as gradient_collectors,
  factored_projection,
  plan as projection_plan,
  traced_loss,
)
from influence_core.subspaces import layer_collectors, parameter_matrices

# Pytrees of [matrix, ...] arrays by path of the parameter.
ByPath = dict[str, Any]


class FactoredGradients:
  """Per-example gradients of a loss, in factored form.

  Features may have other shapes than the first, as texts of other lengths do.

  Attributes:
    matrices: how each selected parameter is read, by path; without those that
      the loss does not use, whose gradient is zero.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    selected: types.SelectedParameters,
    features: types.Features,
  ):
    """Traces the loss.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      selected: parameters that gradients are taken for, by path.
      features: pytree of [num_examples, ...] arrays, for their shapes.

    Raises:
      errors.InputError: The loss does not work on a single example.
    """

    def trace(features: types.Features) -> traced_loss.TracedLoss:
      return traced_loss.trace_loss(
        per_example_loss, params, tuple(selected), features
      )

    self._traced = device_program.ByShape(trace)
    self.matrices = {
      weight.path: parameter_matrices.ParameterMatrices(weight, lengths)
      for weight, lengths in _weights(self._traced(features).plan)
    }

  def losses(
    self, leaves: types.SelectedParameters, features: types.Features
  ) -> jax.Array:
    """[batch] losses, as they are; traceable and differentiable.

    Args:
      leaves: all parameters by path.
      features: pytree of [batch, ...] arrays.
    """
    traced = self._traced(features)
    function = jax_core.jaxpr_as_fun(traced.plan.jaxpr)

    def of_example(example):
      [loss] = function(*traced.arguments(leaves, example))
      return loss

    return jax.vmap(of_example)(features)

  def of_each(
    self,
    leaves: types.SelectedParameters,
    features: types.Features,
    statistic: layer_collectors.Statistic,
    constants: Mapping[str, Any],
  ) -> tuple[jax.Array, ByPath]:
    """Losses [batch] and a statistic of each example; traceable.

    Args:
      leaves: all parameters by path.
      features: pytree of [batch, ...] arrays.
      statistic: of a weight.
      constants: pytrees of [matrix, ...] arrays for it, by path.

    Returns:
      Losses, and pytrees of [batch, matrix, ...] arrays by path. A loss per
      token gives both a tokens axis after the first.
    """
    traced = self._traced(features)

    def of_example(example):
      collectors = layer_collectors.LayerCollectors(statistic)
      value, pull_back = jax.vjp(
        lambda zeros: _loss(traced, leaves, example, collectors, zeros, given),
        zeros,
      )
      if traced.num_tokens is None:
        [found] = pull_back(jnp.ones_like(value))
      else:
        [found] = jax.vmap(pull_back)(jnp.eye(traced.num_tokens))
      return value, found

    zeros, given = _given(traced.plan, (), statistic, constants)
    losses, found = jax.vmap(of_example)(features)
    return losses, self._by_path(found, 1 + (traced.num_tokens is not None))

  def total(
    self,
    leaves: types.SelectedParameters,
    features: types.Features,
    statistic: layer_collectors.Statistic,
    constants: Mapping[str, Any],
    *,
    mask: jax.Array,
  ) -> ByPath:
    """Sums over examples of a statistic; traceable.

    What it is of a single example is never held for all of them.

    Args:
      leaves: all parameters by path.
      features: pytree of [batch, ...] arrays.
      statistic: of a weight; zero where inputs and cotangents are.
      constants: pytrees of [matrix, ...] arrays for it, by path.
      mask: [batch] float32, 1 for examples that count and 0 for others.

    Returns:
      Pytrees of [matrix, ...] arrays by path.
    """
    traced = self._traced(features)
    zeros, given = _given(traced.plan, (), statistic, constants)

    def loss(zeros):
      def of_example(example, weight):
        collectors = layer_collectors.LayerCollectors(statistic, weight)
        return weight * _loss(traced, leaves, example, collectors, zeros, given)

      return jnp.sum(jax.vmap(of_example)(features, mask))

    return self._by_path(jax.grad(loss)(zeros), 0)

  def _by_path(self, found: Any, num_axes: int) -> ByPath:
    """What was collected in all scopes, with the slices of scans as matrices.

    Args:
      found: the cotangent of the zeros.
      num_axes: of examples and tokens, which come first.
    """
    collected = dict(_collected(found))

    def joined(leaf, num_scans):
      lead = leaf.shape[:num_axes]
      return leaf.reshape(*lead, -1, *leaf.shape[num_axes + num_scans + 1 :])

    return {
      path: jax.tree.map(
        functools.partial(joined, num_scans=len(one.lengths)), collected[path]
      )
      for path, one in self.matrices.items()
    }


def _loss(traced, leaves, example, collectors, zeros, given):
  [value] = factored_projection.evaluate(
    traced.plan,
    traced.arguments(leaves, example),
    slots={},
    probe=None,
    given=_paired(zeros, given),
    evaluation=collectors,
  )
  return value


def _weights(
  scope: projection_plan.Scope, lengths: tuple[int, ...] = ()
) -> Iterator[tuple[projection_plan.Weight, tuple[int, ...]]]:
  """Weights of a scope and of all inside it, with the scans that slice them."""
  for weight in scope.weights:
    yield weight, lengths
  for number, inner in scope.scopes.items():
    yield from _weights(inner, lengths + _lengths(scope, number))


def _lengths(scope: projection_plan.Scope, number: int) -> tuple[int, ...]:
  """Of the scan that an equation is, if it is one."""
  equation = scope.jaxpr.jaxpr.eqns[number]
  is_scan = equation.primitive.name == 'scan'
  return (equation.params['length'],) if is_scan else ()


def _given(scope, lengths, statistic, constants):
  """Zeros, and constants, for a scope and all inside it.

  Both have an axis for each scan on the way, of which it takes slices.
  """
  zeros: dict[str, Any] = {'weights': {}, 'scopes': {}}
  given: dict[str, Any] = {'weights': {}, 'scopes': {}}
  for weight in scope.weights:
    own = jax.tree.map(
      lambda leaf: leaf.reshape(*lengths, -1, *leaf.shape[1:]),
      constants.get(weight.path, ()),
    )
    zeros['weights'][weight.path] = _zeros(weight, lengths, statistic, own)
    given['weights'][weight.path] = own
  for number, inner in scope.scopes.items():
    inside = lengths + _lengths(scope, number)
    place = scope.places[number]
    zeros['scopes'][place], given['scopes'][place] = _given(
      inner, inside, statistic, constants
    )
  return zeros, given


def _zeros(weight, lengths, statistic, constants):
  """What the statistic of a weight is added to, [*lengths, matrix, ...]."""

  def of_slice(constants):
    if isinstance(weight, projection_plan.FactoredWeight):
      cotangents: Any = gradient_collectors.empty_slots(weight)
    else:
      cotangents = jnp.zeros(weight.shape)
    gradient = layer_collectors.read_gradient(weight, cotangents)
    return statistic(weight.path, gradient, constants)

  one = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape[len(lengths) :], leaf.dtype),
    constants,
  )
  return jax.tree.map(
    lambda leaf: jnp.zeros((*lengths, *leaf.shape), leaf.dtype),
    jax.eval_shape(of_slice, one),
  )


def _paired(zeros, given):
  """What collectors are given: (zeros, constants) of each weight."""
  return {
    'weights': {
      path: (own, given['weights'][path])
      for path, own in zeros['weights'].items()
    },
    'scopes': {
      number: _paired(inner, given['scopes'][number])
      for number, inner in zeros['scopes'].items()
    },
  }


def _collected(found) -> Iterator[tuple[str, Any]]:
  yield from found['weights'].items()
  for inner in found['scopes'].values():
    yield from _collected(inner)
