"""Products of the Hessian of the training loss with a vector.

The operator that Arnoldi iteration explores. It is built on one fixed sample
of the corpus: a new minibatch at every product would make the operator noisy,
and its small eigenvalues meaningless.
"""

from collections.abc import Callable, Sequence
import math

import jax
from jax import flatten_util
import jax.numpy as jnp

from influence_core import multi_device, parameter_selection, types


def make_hessian_vector_product(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  *,
  sample: types.Features,
  parameter_paths: Sequence[str] = ('.*',),
  l2_weight: float = 0.0,
  microbatch_size: int = 64,
) -> Callable[[jax.Array], jax.Array]:
  """A function v -> Hv for the mean loss of `sample` over the parameters.

  H = 1/N sum_i d2 loss_i / d theta2 + l2_weight * I, by forward-over-reverse
  differentiation, accumulated in float32 over microbatches and devices.

  Args:
    per_example_loss: (params, [batch, ...] features) -> [batch] losses.
    params: pytree of arrays at which the Hessian is taken.
    sample: pytree of [num_examples, ...] arrays.
    parameter_paths: regular expressions of the parameters to differentiate.
    l2_weight: c, where the training loss had a term c/2 * |theta|^2.
    microbatch_size: examples differentiated at a time on each device; bounds
      the memory.

  Returns:
    A function from [num_parameters] float32 to [num_parameters] float32, where
    parameters lie in the order of their sorted paths. The result is
    meaningless where the loss is not twice differentiable.
  """
  selected = parameter_selection.select_parameters(params, parameter_paths)
  _, unravel = flatten_util.ravel_pytree(selected)
  total = multi_device.num_examples(sample)
  devices = jax.local_device_count()
  microbatch_size = min(microbatch_size, math.ceil(total / devices))
  microbatches = [
    multi_device.place(batch)
    for batch in multi_device.padded_batches(sample, microbatch_size * devices)
  ]

  def add_microbatch(product, params, selected, vector, batch):
    def loss_sum(selected):
      replaced = parameter_selection.replace_parameters(params, selected)
      losses = per_example_loss(replaced, batch.features)  # [microbatch]
      return jnp.sum(losses.astype(jnp.float32) * batch.mask)

    _, part = jax.jvp(jax.grad(loss_sum), (selected,), (unravel(vector),))
    return product + flatten_util.ravel_pytree(part)[0]

  def mean_over_devices(product, vector):
    product = jax.lax.psum(product, multi_device.DEVICE_AXIS)
    return product / total + l2_weight * vector

  # A Python loop, not lax.scan: XLA on CPU runs convolutions in a loop body
  # about eight times slower, and dispatch is asynchronous anyway.
  add_microbatch = multi_device.parallel_map(
    add_microbatch, donate_argnums=(0,)
  )
  mean_over_devices = multi_device.parallel_map(mean_over_devices)
  placed_params = multi_device.replicate(params)
  placed_selected = multi_device.replicate(selected)

  def hessian_vector_product(vector: jax.Array) -> jax.Array:
    vector = multi_device.replicate(vector)  # [devices, num_parameters]
    product = jnp.zeros_like(vector)
    for batch in microbatches:
      product = add_microbatch(
        product, placed_params, placed_selected, vector, batch
      )
    return mean_over_devices(product, vector)[0]

  return hessian_vector_product
