"""Losses of a linear model as users write them, with what is told of each.

A table of `(loss, message)`; whatever a loss needs stands inside it, so that
the place that a message names is inside it too.
"""

import functools

from flax import nnx
import jax
from jax import experimental
import jax.numpy as jnp
import numpy as np
import optax

CANNOT_BE_TRACED, FAILS, RETURNS, ONE_BATCH_SIZE, NO_GRADIENT, ZERO, MIXES = (
  'cannot be traced (',
  'failed on a few examples (',
  ' returned ',
  'it must work for any batch size',
  'cannot be differentiated (',
  'by the selected parameters is zero for every example',
  'must not mix the examples of a batch',
)
WRONG = {}


def told(message, reason=''):
  """Adds a loss to the table, with two parts of its message."""

  def add(loss):
    WRONG[loss.__name__] = loss, (message, reason)
    return loss

  return add


def plain(params, features):
  """Half the squared error, [batch]."""
  predicted = features['x'] @ params['w'] + params['b']
  return 0.5 * jnp.square(predicted - features['y'])


@told(CANNOT_BE_TRACED, 'ConcretizationTypeError: Abstract tracer value')
def as_float(p, f):
  return jnp.asarray([float(x) for x in plain(p, f)])


@told(CANNOT_BE_TRACED, 'ConcretizationTypeError')
def as_item(p, f):
  return plain(p, f) / plain(p, f).sum().item()


@told(CANNOT_BE_TRACED, 'TracerArrayConversionError: The numpy.ndarray conv')
def by_numpy(p, f):
  return jnp.asarray(np.square(np.asarray(f['x'] @ p['w'])))


@told(CANNOT_BE_TRACED, 'TracerBoolConversionError')
def branching(p, f):
  losses = plain(p, f)
  return losses if losses[0] > 0 else -losses


class _Counter(nnx.Module):
  """Changes when it is called, as layers with running averages do."""

  def __init__(self):
    self.calls = nnx.Variable(jnp.array(0.0))


_COUNTER = _Counter()


@told(CANNOT_BE_TRACED, 'nnx.merge inside')
def changing_a_module(p, f):
  _COUNTER.calls[...] += 1.0
  return plain(p, f)


@told(FAILS, "KeyError: 'absent'")
def without_a_feature(p, f):
  return f['absent']


@told(FAILS, 'do model, checkpoint and preprocess belong together?')
def of_another_shape(p, f):
  return f['x'] @ p['w'][:2]


@told(FAILS, 'AssertionError, ')
def asserting(p, f):
  assert 'z' in f


@told(FAILS, "missing 1 required positional argument: 'rng'")
def with_more_arguments(p, f, rng):
  return plain(p, f)


@told(FAILS, 'SystemExit: 3')
def leaving(p, f):
  raise SystemExit(3)


@told(FAILS, f'ValueError: {"x" * 400}…')
def chatty(p, f):
  raise ValueError('x' * 5000)


@told(FAILS, 'SpeechlessError')
def speechless(p, f):
  class SpeechlessError(Exception):
    def __str__(self):
      raise RuntimeError

  raise SpeechlessError


@told(FAILS, 'No VJP defined')
def without_a_rule(p, f):
  @jax.custom_vjp
  def doubled(x):
    return 2 * x

  return doubled(plain(p, f))


@told(RETURNS, 'a tuple, expected an array of shape (4,)')
def with_extras(p, f):
  return plain(p, f), {'accuracy': 1}


@told(RETURNS, 'a NoneType, expected')
def forgetful(p, f):
  plain(p, f)


@told(RETURNS, 'shape (), expected (4,), one loss per example; do not reduce')
def reduced(p, f):
  return plain(p, f).mean()


@told(RETURNS, 'shape (4, 7), expected (4,), one loss per example; sum or')
def by_token(p, f):
  return plain(p, f)[:, None] * jnp.ones(7)


@told(RETURNS, 'int32, expected a floating-point type')
def of_integers(p, f):
  return plain(p, f).astype(int)


@told(ONE_BATCH_SIZE, 'shape () for a batch of one example, expected (1,)')
def squeezed(p, f):
  return jnp.squeeze(plain(p, f))


@told(ONE_BATCH_SIZE, 'fails on a batch of one example (TypeError: ')
def of_four(p, f):
  return plain(p, f).reshape(4)


@told(ONE_BATCH_SIZE, 'fails on a batch of 5 examples (TypeError: ')
def of_one_or_an_even_number(p, f):
  losses = plain(p, f)
  return losses if len(losses) == 1 else losses.reshape(2, -1).reshape(-1)


@told(NO_GRADIENT, 'Pure callbacks do not support JVP')
def on_the_host(p, f):
  losses = plain(p, f)
  return jax.pure_callback(np.asarray, losses, losses)


@told(NO_GRADIENT, 'IO callbacks do not support JVP')
def with_effects(p, f):
  losses = plain(p, f)
  return experimental.io_callback(np.asarray, losses, losses)


@told(NO_GRADIENT, 'Reverse-mode differentiation does not work for lax.while')
def looping(p, f):
  def is_short(carry):
    return carry[0] < 3

  def step(carry):
    return carry[0] + 1, 1.1 * carry[1]

  return jax.lax.while_loop(is_short, step, (0, plain(p, f)))[1]


@told(NO_GRADIENT, 'ValueError: not yet')
def with_an_unfinished_rule(p, f):
  def backward(residual, cotangent):
    raise ValueError('not yet')

  doubled = jax.custom_vjp(lambda x: 2 * x)
  doubled.defvjp(lambda x: (2 * x, None), backward)
  return doubled(plain(p, f))


@told(NO_GRADIENT, 'Custom VJP bwd rule must produce')
def with_a_rule_for_two(p, f):
  doubled = jax.custom_vjp(lambda x: 2 * x)
  doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (g, g))
  return doubled(plain(p, f))


@told(ZERO, 'jax.lax.stop_gradient')
def stopped(p, f):
  return jax.lax.stop_gradient(plain(p, f))


@told(ZERO)
def stopped_inside_a_layer(p, f):
  layer = jax.jit(lambda p, f: plain(jax.lax.stop_gradient(p), f))
  return layer(p, f)


@told(ZERO)
def error_rate(p, f):
  return ((f['x'] @ p['w'] > 0) != (f['y'] > 0)).astype(jnp.float32)


@told(ZERO)
def of_other_parameters(p, f):
  return plain({'w': jnp.ones(3), 'b': 0.5}, f)


@told(MIXES, 'running averages')
def normalised_over_the_batch(p, f):
  x = f['x']
  return plain(p, {**f, 'x': (x - x.mean(0)) / (x.std(0) + 0.1)})


@told(MIXES)
def contrastive(p, f):
  h = f['x'] * p['w']
  return optax.softmax_cross_entropy_with_integer_labels(
    h @ h.T, jnp.arange(len(h))
  )


@told(MIXES)
def divided_by_the_batch_size(p, f):
  return plain(p, f) / len(f['y'])


@told(MIXES, 'dropout deterministically')
def with_dropout(p, f):
  kept = jax.random.bernoulli(jax.random.key(0), 0.5, f['x'].shape)
  return plain(p, {**f, 'x': f['x'] * kept})


@told(MIXES)
def with_noise(p, f):
  return plain(p, f) * np.random.default_rng().uniform(1, 9)


class Scaled:
  """A loss that is an object, and no key of a dictionary."""

  __hash__ = None

  def __init__(self, scale):
    self.scale = scale

  def __eq__(self, other):
    return True

  def __call__(self, p, f):
    return self.scale * plain(p, f)


def changing_its_arguments(p, f):
  b, x = p.pop('b'), f.pop('x')
  return 0.5 * jnp.square(x @ p['w'] + b - f['y'])


def with_zero_gradients(p, f):
  """Of most examples, as those of a hinge loss are."""
  return jnp.maximum(0, plain(p, f) - 1e9)


def _doubled(x):
  rule = jax.custom_vjp(lambda x: 2 * x)
  rule.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
  return rule(x)


RIGHT = {
  'plain': plain,
  'jitted, its arguments given away': jax.jit(plain, donate_argnums=(0, 1)),
  'partial': functools.partial(lambda scale, p, f: scale * plain(p, f), 2.0),
  'object': Scaled(2.0),
  'method': Scaled(2.0).__call__,
  'changing its arguments': changing_its_arguments,
  'zero gradients': with_zero_gradients,
  'constant gradient': lambda p, f: jnp.ones(len(f['y'])) * p['w'].sum(),
  'custom rule': lambda p, f: _doubled(plain(p, f)),
  'loop of known length': lambda p, f: jax.lax.fori_loop(
    0, 3, lambda _, x: 1.1 * x, plain(p, f)
  ),
  'example by example': lambda p, f: jax.lax.map(
    lambda one: plain(p, jax.tree.map(lambda leaf: leaf[None], one))[0], f
  ),
  'same part of all features': lambda p, f: plain(
    p, {**f, 'x': f['x'] * jax.random.bernoulli(jax.random.key(0), 0.5, (3,))}
  ),
  'bfloat16': lambda p, f: plain(
    p, {**f, 'x': f['x'].astype(jnp.bfloat16)}
  ).astype(jnp.bfloat16),
}
