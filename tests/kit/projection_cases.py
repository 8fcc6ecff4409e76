"""Hard cases of gradient projection: every way in which a loss uses parameters.

Each is tiny and named after its difficulty. Here stand the plain functions;
Flax layers and whole models are in `projection_cases_layers`.
"""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from tests.benchmarks import projection_models
from tests.kit import projection_cases_layers

_NUM_EXAMPLES = 5


def hard_cases() -> list[projection_models.ProjectionCase]:
  """All cases, under unique names; their losses are finite.

  `custom_vjp_with_parameter` has no forward mode: compare it with reverse mode.
  bfloat16 cases agree to about 1e-2, others to rounding of float32. Gradients
  are zero for parameters called `unused` or `switch`, the `second` matrix of
  `cond_on_parameter`, the statistics of `batch_norm_frozen` and the key biases
  of attention, which softmax cancels: there only rounding is left.
  """
  return [
    *_function_cases(),
    *projection_cases_layers.layer_cases(),
    *projection_cases_layers.model_cases(),
  ]


def shared_weight_three_ways(params, features):
  w, x = params['w'], features['x']
  squared = jnp.einsum('btc,cd->btd', jnp.sin(x), w * w)
  return jnp.tanh(x @ w) @ w.T + squared


def dense_applied_twice(params, features):
  hidden = jnp.tanh(features['x'] @ params['w'] + params['b'])
  return hidden @ params['w'] + params['b']


def weight_as_left_operand(params, features):
  dimensions = (((1,), (2,)), ((), ()))
  output = lax.dot_general(params['w'], features['x'], dimensions)
  return jnp.moveaxis(output, 1, 0)  # [features, batch, ...] before


def weight_with_batch_dimensions(params, features):
  heads = features['x'].reshape(-1, 6, 2, 4)
  return jnp.einsum('bthi,hij->bthj', heads, params['w'])


def left_weight_with_batch_dimensions(params, features):
  heads = features['x'].reshape(-1, 6, 2, 4)
  dimensions = (((1,), (3,)), ((0,), (2,)))
  output = lax.dot_general(params['w'], heads, dimensions)
  return jnp.moveaxis(output, 2, 0)  # [heads, features, batch, tokens] before


def position_embedding(params, features):
  return jnp.tanh(features['x'] + params['positions']) @ params['w']


def learned_temperature(params, features):
  return features['x'] @ params['w'] / jnp.exp(params['temperature'])


def lora_merged(params, features):
  return features['x'] @ (params['w'] + params['a'] @ params['b'])


def lora_unmerged(params, features):
  x = features['x']
  return x @ params['w'] + (x @ params['a']) @ params['b']


def soft_mixture_of_experts(params, features):
  gates = jax.nn.softmax(features['x'] @ params['gate'])
  return jnp.einsum('btc,ecf,bte->btf', features['x'], params['w'], gates)


def top_one_mixture_of_experts(params, features):
  x = features['x']
  gates = jax.nn.softmax(x @ params['gate'])
  chosen = jax.nn.one_hot(gates.argmax(axis=-1), gates.shape[-1])
  inputs = jnp.einsum('btc,bte->betc', x, chosen)
  outputs = jnp.einsum('betc,ecf->betf', inputs, params['w'])
  return jnp.einsum('betf,bte->btf', outputs, chosen * gates)


def embedding_of_repeated_ids(params, features):
  return jnp.cumsum(jnp.tanh(params['table'][features['ids']]), axis=1)


def matrix_indexed_by_data(params, features):
  matrices = params['w'][features['choice']]
  return jnp.einsum('btc,bcf->btf', features['x'], matrices)


def unused_parameter(params, features):
  return features['x'] @ params['w']


def integer_parameters(params, features):
  """A row order and a step count: parameters without a gradient."""
  rate = 1 / jnp.sqrt(params['step'].astype(jnp.float32))
  return rate * features['x'] @ params['w'][params['order']]


def stop_gradient_on_one_use(params, features):
  hidden = jnp.tanh(features['x'] @ params['w'])
  return hidden @ lax.stop_gradient(params['w'])


def jitted_function_called_twice(params, features):
  """One traced body for both layers."""
  layer = jax.jit(lambda w, x: jnp.tanh(x @ w))
  return layer(params['second'], layer(params['first'], features['x']))


def checkpoint_on_function(params, features):
  layer = jax.checkpoint(lambda w, x: jnp.sin(x @ w))
  return layer(params['second'], layer(params['first'], features['x']))


def loop_over_stacked_parameter(params, features):
  x = features['x']
  for i in range(len(params['w'])):
    x = jnp.tanh(x @ params['w'][i])
  return x


def nested_scans(params, features):
  def inner(x, w):
    return jnp.tanh(x @ w), None

  def outer(x, stacked):
    return lax.scan(inner, x, stacked)[0] + x, None

  return lax.scan(outer, features['x'], params['w'])[0]


def scan_over_parameters_and_data(params, features):
  """A matrix for each time."""

  def step(carry, inputs):
    w, x = inputs
    carry = jnp.tanh(carry + x @ w)
    return carry, carry

  carry = jnp.zeros((len(features['x']), params['w'].shape[-1]))
  times = jnp.moveaxis(features['x'], 1, 0)
  outputs = lax.scan(step, carry, (params['w'], times))[1]
  return jnp.moveaxis(outputs, 1, 0)  # [time, batch, features] before


def parameter_as_initial_carry(params, features):
  def step(carry, x):
    return jnp.tanh(carry @ params['w'] + x), None

  times = jnp.moveaxis(features['x'], 1, 0)
  carry = jnp.broadcast_to(params['initial'], times.shape[1:])
  return lax.scan(step, carry, times)[0]


def matrix_inside_and_outside_scan(params, features):
  w = params['w']

  def step(carry, bias):
    return jnp.tanh(carry @ w + bias), None

  hidden = lax.scan(step, features['x'] @ w, params['biases'])[0]
  return hidden @ w.T


def fori_loop(params, features):
  return lax.fori_loop(
    0, 3, lambda _, x: jnp.tanh(x @ params['w']), features['x']
  )


def cond_under_vmap(params, features):
  return jax.vmap(lambda x: _one_of_two(x.sum() > 0, params, x))(features['x'])


def cond_in_map(params, features):
  """The branch of each example is taken, not selected."""
  return lax.map(lambda x: _one_of_two(x.sum() > 0, params, x), features['x'])


def cond_on_parameter(params, features):
  return _one_of_two(params['switch'] > 0, params, features['x'])


def custom_jvp_activation(params, features):
  return _rounded(features['x'] @ params['w'])


def custom_jvp_on_weight(params, features):
  """Fake quantisation, which no example has a part in."""
  return features['x'] @ _rounded(params['w'])


def custom_vjp_with_parameter(params, features):
  return _half_gradient_dense(params['w'], features['x']) @ params['head']


def _one_of_two(predicate, params, x):
  return lax.cond(
    predicate,
    lambda: x @ params['first'],
    lambda: jnp.sin(x @ params['second']),
  )


@jax.custom_jvp
def _rounded(x):
  """To quarters; the derivative is that of the identity."""
  return jnp.round(4 * x) / 4


_rounded.defjvps(lambda tangent, answer, x: tangent)


@jax.custom_vjp
def _half_gradient_dense(w, x):
  """A layer that passes half of its gradient: who looks inside is wrong."""
  return jnp.tanh(x @ w)


def _half_gradient_dense_forward(w, x):
  output = jnp.tanh(x @ w)
  return output, (w, x, output)


def _half_gradient_dense_backward(residuals, cotangent):
  w, x, output = residuals
  cotangent = 0.5 * cotangent * (1 - jnp.square(output))
  return jnp.einsum('btc,btf->cf', x, cotangent), cotangent @ w.T


_half_gradient_dense.defvjp(
  _half_gradient_dense_forward, _half_gradient_dense_backward
)


_PARAMETER_SHAPES = {
  shared_weight_three_ways: {'w': (8, 8)},
  dense_applied_twice: {'w': (8, 8), 'b': (8,)},
  weight_as_left_operand: {'w': (3, 8)},
  weight_with_batch_dimensions: {'w': (2, 4, 3)},
  left_weight_with_batch_dimensions: {'w': (2, 4, 3)},
  position_embedding: {'positions': (6, 8), 'w': (8, 3)},
  learned_temperature: {'temperature': (), 'w': (8, 3)},
  lora_merged: {'a': (8, 2), 'b': (2, 3), 'w': (8, 3)},
  lora_unmerged: {'a': (8, 2), 'b': (2, 3), 'w': (8, 3)},
  soft_mixture_of_experts: {'gate': (8, 4), 'w': (4, 8, 3)},
  top_one_mixture_of_experts: {'gate': (8, 4), 'w': (4, 8, 3)},
  embedding_of_repeated_ids: {'table': (4, 8)},
  matrix_indexed_by_data: {'w': (4, 8, 3)},
  unused_parameter: {'unused': (4, 2), 'w': (8, 3)},
  stop_gradient_on_one_use: {'w': (8, 8)},
  jitted_function_called_twice: {'first': (8, 8), 'second': (8, 8)},
  checkpoint_on_function: {'first': (8, 5), 'second': (5, 3)},
  loop_over_stacked_parameter: {'w': (3, 8, 8)},
  nested_scans: {'w': (2, 3, 8, 8)},
  scan_over_parameters_and_data: {'w': (6, 8, 3)},
  parameter_as_initial_carry: {'initial': (8,), 'w': (8, 8)},
  matrix_inside_and_outside_scan: {'biases': (3, 8), 'w': (8, 8)},
  fori_loop: {'w': (8, 8)},
  cond_under_vmap: {'first': (8, 3), 'second': (8, 3)},
  cond_in_map: {'first': (8, 3), 'second': (8, 3)},
  cond_on_parameter: {'first': (8, 3), 'second': (8, 3), 'switch': ()},
  custom_jvp_activation: {'w': (8, 3)},
  custom_jvp_on_weight: {'w': (8, 3)},
  custom_vjp_with_parameter: {'head': (5, 3), 'w': (8, 5)},
}


def _function_cases():
  """The functions above, all on the same features."""
  generator = np.random.default_rng(3)
  features = {
    'x': projection_cases_layers.random_inputs((_NUM_EXAMPLES, 6, 8)),
    'ids': jnp.asarray(generator.integers(3, size=(_NUM_EXAMPLES, 6))),
    'choice': jnp.asarray(generator.integers(4, size=_NUM_EXAMPLES)),
  }
  cases = [
    _function_case(function, _draw(shapes), features)
    for function, shapes in _PARAMETER_SHAPES.items()
  ]
  integers = {'order': jnp.asarray([3, 1, 0, 2, 4, 7, 6, 5]), 'step': 9}
  params = {**_draw({'w': (8, 3)}), **jax.tree.map(jnp.int32, integers)}
  cases.append(_function_case(integer_parameters, params, features))
  return [*cases, projection_cases_layers.with_l2(cases[1])]


def _function_case(function, params, features):
  return projection_cases_layers.output_case(
    function.__name__, function, params, features
  )


def _draw(shapes):
  return projection_models.draw_params(
    {
      name: jax.ShapeDtypeStruct(shape, jnp.float32)
      for name, shape in shapes.items()
    }
  )
