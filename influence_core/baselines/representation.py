"""What a model makes of examples before its last layer, for any model.

Examples with similar representations are the simplest answer to which training
examples matter for a query, and so a baseline of influence. No code of the
user's is asked for: the last layer is found in the traced loss.

References:
  Hanawa et al., "Evaluation of Similarity-based Explanations", ICLR 2021, for
  similarities of the last hidden layer beside influence.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.baselines import last_layer as last_layer_lib
from influence_core.baselines.last_layer import LastLayer, Origin
from influence_core.devices import multi_device, parameter_layout
from influence_core.projection import (
  contraction as gradient_contraction,
  factored_projection,
  plan as projection_plan,
  traced_loss,
)

# Examples evaluated at a time.
BATCH_SIZE = 64


class Representation:
  """The input of the last layer, as one vector for each example.

  Inputs with several positions (tokens, pixels) are averaged over those whose
  output the loss depends on, as it does not on padding; over all where it
  depends on none. Where the last layer is in the body of a scan, its steps are
  positions like others.
  """

  def __init__(
    self, per_example_loss: types.PerExampleLoss, params: types.Params
  ):
    """Evaluates nothing yet.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
    """
    self._per_example_loss = per_example_loss
    self._params = params
    self._leaves = parameter_layout.fit_devices(
      parameter_selection.all_parameters(params)
    )
    self._evaluate = jax.jit(self._of_batch)

  def __call__(self, features: types.Features) -> np.ndarray:
    """[num_examples, width] float32 of [num_examples, ...] features.

    Raises:
      errors.InputError: No layer is found, or the loss cannot be traced.
    """
    count = multi_device.num_examples(features)
    parts = []
    for start in range(0, count, BATCH_SIZE):
      batch = multi_device.filled(features, start, BATCH_SIZE)
      parts.append(np.asarray(self._evaluate(self._leaves, batch)))
    return np.concatenate(parts)[:count]

  def _of_batch(self, leaves, features) -> jax.Array:
    traced = traced_loss.trace_loss(
      self._per_example_loss, self._params, (), features
    )
    last = _find_last(traced, len(leaves))
    empty = gradient_contraction.SiteValues(
      *(
        jnp.zeros((*last.lengths, *like.shape), like.dtype)
        for like in (last.site.data, last.site.output)
      )
    )

    def of_example(example):
      def loss(slot):
        [value] = factored_projection.evaluate(
          last.scope,
          traced.arguments(leaves, example),
          slots={str(last.site.number): slot},
          probe=None,
          given=_nothing_given(last.scope),
          evaluation=_NothingCollected(),
        )
        return value.sum()

      # The slot's are the input of the site and the cotangent of its output. No
      # derivative is taken of what comes before.
      return _mean_input(last, jax.grad(loss)(empty))

    return jax.vmap(of_example)(features)


def _find_last(
  traced: traced_loss.TracedLoss, num_parameters: int
) -> LastLayer:
  """The last layer of a loss whose inputs begin with all parameters."""
  jaxpr = traced.plan.jaxpr
  num_features = len(jaxpr.jaxpr.invars) - num_parameters
  last = last_layer_lib.find(
    jaxpr,
    [
      *[Origin(example=False, parameters=True)] * num_parameters,
      *[Origin(example=True, parameters=False)] * num_features,
    ],
  )
  if last is None:
    raise errors.InputError(
      'the loss has no product or convolution of what depends on the example '
      'with a parameter, expected one, whose input is the representation; '
      'leave the embedding out'
    )
  return last


class _NothingCollected:
  """The scopes on the way to the last layer own no weights."""

  def collect(self, scope, inputs, probe, given):
    """See `collectors.Evaluation`."""
    del scope, probe, given
    return list(inputs), {}


def _nothing_given(scope: projection_plan.Scope) -> dict[str, Any]:
  return {
    'scopes': {
      scope.places[number]: _nothing_given(inner)
      for number, inner in scope.scopes.items()
    }
  }


def _mean_input(
  last: LastLayer, values: gradient_contraction.SiteValues
) -> jax.Array:
  """[width] float32: the input of the layer, mean over its positions."""
  rule = last.site.rule

  def matrices(value, shape, read):
    return jax.vmap(read)(value.reshape(-1, *shape)).astype(jnp.float32)

  # [steps, batch, position, row] and [steps, batch, position, column]
  left = matrices(values.data, last.site.data.shape, rule.left)
  right = matrices(values.cotangent, last.site.output.shape, rule.right)
  is_used = jnp.any(right != 0, axis=(1, 3))  # [steps, position]
  weights = jnp.where(is_used.any(), is_used, True).astype(jnp.float32)
  total = jnp.sum(left * weights[:, None, :, None], axis=(0, 2))
  return total.reshape(-1) / weights.sum()
