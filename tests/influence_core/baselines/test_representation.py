"""What enters the last layer, beside models that say it themselves."""

import jax
from jax import lax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from influence_core import errors
from influence_core.baselines import representation
from launch.example_tasks import transformer
from tests.benchmarks import projection_models

# Of float32 sums in another order.
TOLERANCE = {'rtol': 1e-5, 'atol': 1e-6}
GENERATOR = np.random.default_rng(0)


def draw(*shape):
  return GENERATOR.normal(size=shape).astype(np.float32)


PARAMS = {
  'first': draw(4, 6),
  'bias': draw(6),
  'last': draw(6, 3),
  'scale': np.float32(0.7),
  'stack': draw(2, 6, 3),
}
FEATURES = {'x': draw(5, 4), 'y': draw(5, 3)}


def hidden(params, features):
  return jnp.tanh(features['x'] @ params['first'] + params['bias'])


def found(loss, params=PARAMS, features=FEATURES):
  return representation.Representation(loss, params)(features)


def half_squares(outputs, features):
  return 0.5 * jnp.square(outputs - features['y']).sum(axis=-1)


def plain(params):
  return params['last']


def normalised(params):
  return params['last'] / jnp.linalg.norm(params['last'], axis=0)


def scaled_and_transposed(params):
  return (params['last'].T * params['scale']).T


def merged_with_an_adapter(params):
  return params['last'] + params['stack'][0] @ jnp.eye(3)


def one_of_a_stack(params):
  return params['stack'][1]


@pytest.mark.parametrize(
  'weight',
  [
    plain,
    normalised,
    scaled_and_transposed,
    merged_with_an_adapter,
    one_of_a_stack,
  ],
)
def test_whatever_is_done_to_the_weight(weight):
  """And with a penalty on all parameters beside the loss."""

  def loss(params, features):
    outputs = hidden(params, features) @ weight(params)
    penalty = sum(jnp.vdot(x, x) for x in jax.tree.leaves(params))
    return half_squares(outputs, features) + 0.1 * penalty

  expected = hidden(PARAMS, FEATURES)
  np.testing.assert_allclose(found(loss), expected, **TOLERANCE)


@pytest.mark.parametrize('wrapped', [jax.jit, jax.checkpoint])
def test_inside_of_calls(wrapped):
  def loss(params, features):
    outputs = wrapped(lambda w, x: x @ w)(
      params['last'], hidden(params, features)
    )
    return half_squares(outputs, features)

  expected = hidden(PARAMS, FEATURES)
  np.testing.assert_allclose(found(loss), expected, **TOLERANCE)


def test_any_number_of_examples():
  """Fewer and more than a batch, each by itself."""

  def loss(params, features):
    return half_squares(hidden(params, features) @ params['last'], features)

  features = {'x': draw(150, 4), 'y': draw(150, 3)}
  every = found(loss, features=features)
  np.testing.assert_allclose(every, hidden(PARAMS, features), **TOLERANCE)
  last = jax.tree.map(lambda leaf: leaf[-1:], features)
  np.testing.assert_allclose(found(loss, features=last), every[-1:], rtol=1e-6)


def token_features(lengths, num_tokens):
  mask = np.arange(num_tokens) < np.array(lengths)[:, None]
  generator = np.random.default_rng(1)
  x = generator.normal(size=(len(lengths), 8, 4))[:, :num_tokens]
  labels = generator.integers(3, size=(len(lengths), 8))[:, :num_tokens]
  return {'x': x.astype(np.float32), 'labels': labels, 'mask': mask}


def token_loss(logits, features):
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, features['labels']
  )
  return (losses * features['mask']).sum(axis=-1)


def by_token(params, features):
  return token_loss(hidden(params, features) @ params['last'], features)


def token_by_token(params, features):
  """The outputs are made in a scan, as for large vocabularies."""

  def step(total, inputs):
    own, label, weight = inputs
    losses = optax.softmax_cross_entropy_with_integer_labels(
      own @ params['last'], label
    )
    return total + losses * weight, None

  tokens = hidden(params, features), features['labels'], features['mask']
  by_time = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 1, 0), tokens)
  return lax.scan(step, jnp.zeros(len(tokens[0])), by_time)[0]


@pytest.mark.parametrize('loss', [by_token, token_by_token])
def test_mean_over_the_tokens_that_count(loss):
  lengths = [3, 5, 1, 4]
  states = hidden(PARAMS, token_features(lengths, 8))
  expected = [x[:n].mean(axis=0) for x, n in zip(states, lengths, strict=True)]
  for num_tokens in (5, 8):  # Whatever they are padded to.
    features = token_features(lengths, num_tokens)
    np.testing.assert_allclose(
      found(loss, features=features), expected, **TOLERANCE
    )


def test_an_example_that_nothing_depends_on_counts_all_tokens():
  features = token_features([0, 2], 5)
  expected = hidden(PARAMS, features)[0].mean(axis=0)
  np.testing.assert_allclose(
    found(by_token, features=features)[0], expected, **TOLERANCE
  )


def test_channels_under_a_convolution():
  """The window covers one pixel: its input is the image itself."""
  params = {'first': draw(2, 6), 'kernel': draw(1, 1, 6, 3)}
  features = {'image': draw(4, 5, 5, 2), 'y': draw(4, 3)}

  def loss(params, features):
    pixels = jnp.tanh(features['image'] @ params['first'])
    maps = lax.conv_general_dilated(
      pixels,
      params['kernel'],
      (1, 1),
      'SAME',
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return half_squares(maps.mean(axis=(1, 2)), features)

  expected = jnp.tanh(features['image'] @ params['first']).mean(axis=(1, 2))
  np.testing.assert_allclose(
    found(loss, params, features), expected, **TOLERANCE
  )


def test_states_of_a_language_model():
  """Its last layer is the table of embeddings, which is looked up as well."""
  model = transformer.LanguageModel(11, 8, num_layers=1, num_heads=2)
  tokens = np.array([[3, 1, 4, 1], [5, 9, 0, 0]])
  shapes = jax.eval_shape(model.init, jax.random.key(0), tokens)
  params = projection_models.draw_params(shapes)

  def loss(params, features):
    tokens = features['tokens']
    losses = optax.softmax_cross_entropy_with_integer_labels(
      model.apply(params, tokens), tokens
    )
    return jnp.sum(losses * (tokens != transformer.PAD_ID), axis=1)

  apply = jax.jit(lambda p: model.apply(p, tokens, capture_intermediates=True))
  [states] = apply(params)[1]['intermediates']['LayerNorm_0']['__call__']
  expected = [states[0].mean(axis=0), states[1, :2].mean(axis=0)]
  np.testing.assert_allclose(
    found(loss, params, {'tokens': tokens}), expected, **TOLERANCE
  )


def test_a_loss_without_layers_is_refused():
  def loss(params, features):
    return jnp.square(features['x'] * params['scale']).sum(axis=1)

  with pytest.raises(errors.InputError, match='no product or convolution'):
    found(loss)
