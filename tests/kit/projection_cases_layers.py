"""Hard cases of gradient projection: layers of Flax and whole models.

Most layers act on random [batch, 6, 8] float32, convolutions on images. What
a layer puts out becomes a loss by `output_case`.
"""

from collections.abc import Callable
import dataclasses

from flax import nnx
import flax.linen as nn
import jax
from jax import lax
import jax.numpy as jnp
import numpy as np

from influence_core import types
from tests.benchmarks import projection_models

_NUM_EXAMPLES = 5
_SHAPE = (6, 8)
_IMAGE_SHAPE = (7, 6, 4)
_VOLUME_SHAPE = (4, 5, 3, 2)


def random_inputs(shape: tuple[int, ...]) -> jax.Array:
  """Normal float32 of the given shape, the same at every call."""
  values = np.random.default_rng(2).normal(size=shape)
  return jnp.asarray(values, jnp.float32)


def output_case(
  name: str,
  output: Callable[[types.Params, types.Features], jax.Array],
  params: types.Params,
  features: types.Features,
) -> projection_models.ProjectionCase:
  """The case whose loss is the sum of tanh(output)^2 over each example.

  The loss bends, so that cotangents differ between examples and positions.
  """

  def per_example_loss(params, features):
    outputs = output(params, features).astype(jnp.float32)
    squares = jnp.square(jnp.tanh(outputs))  # [batch, ...]
    return squares.reshape(len(squares), -1).sum(axis=1)

  return projection_models.ProjectionCase(
    name, per_example_loss, params, features
  )


def with_l2(
  case: projection_models.ProjectionCase,
) -> projection_models.ProjectionCase:
  """The case with a penalty in the loss of each example."""

  def per_example_loss(params, features):
    squares = [jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(params)]
    return case.per_example_loss(params, features) + 0.05 * sum(squares)

  return dataclasses.replace(
    case, name=f'{case.name}_with_l2', per_example_loss=per_example_loss
  )


def layer_cases() -> list[projection_models.ProjectionCase]:
  """Layers of Flax, convolutions and an nnx model."""
  cases = [
    _module_case(name, module, (_NUM_EXAMPLES, *shape))
    for shape, modules in (
      (_SHAPE, _sequence_modules()),
      (_IMAGE_SHAPE, _image_modules()),
      (_VOLUME_SHAPE, {'convolution_3d': nn.Conv(3, (2, 3, 2))}),
    )
    for name, module in modules.items()
  ]
  return [*cases, _frozen_batch_norm(), _nnx_attention()]


def model_cases() -> list[projection_models.ProjectionCase]:
  """The benchmark's models, tiny."""
  transformer = {'width': 8, 'num_layers': 2, 'num_heads': 2}
  text = {'vocabulary_size': 11, 'num_tokens': 6, **transformer}
  size = {'num_examples': _NUM_EXAMPLES}
  language_models = [
    projection_models.language_model(
      scanned=scanned, remat=remat, **text, **size
    )
    for scanned in (False, True)
    for remat in (False, True)
  ]
  return [
    projection_models.mlp(sizes=(9, 8, 7, 10), **size),
    projection_models.convolutional(
      image_size=8, channels=(3, 4), hidden=6, **size
    ),
    projection_models.vision_transformer(
      image_size=6, patch_size=2, **transformer, **size
    ),
    projection_models.encoder_decoder(**text, **size),
    *language_models,
    with_l2(language_models[2]),
  ]


def _module_case(name, module, shape):
  inputs = random_inputs(shape)
  return output_case(
    name,
    lambda params, features: module.apply(params, features['x']),
    projection_models.draw_module_params(module, inputs[:1]),
    {'x': inputs},
  )


def _sequence_modules() -> dict[str, nn.Module]:
  """Layers on [batch, 6, 8]."""
  return {
    'dense_general_over_two_axes': nn.DenseGeneral((2, 3), axis=(-2, -1)),
    'dropout_deterministic': nn.Sequential(
      [nn.Dense(5), nn.Dropout(0.5, deterministic=True), nn.Dense(3)]
    ),
    'weight_norm': nn.WeightNorm(nn.Dense(3)),
    'prelu': nn.Sequential([nn.Dense(5), nn.PReLU()]),
    'group_norm': nn.Sequential([nn.Dense(6), nn.GroupNorm(num_groups=2)]),
    'rms_norm': nn.Sequential([nn.Dense(6), nn.RMSNorm()]),
    # Here the statistics are parameters like the rest, with a gradient.
    'batch_norm_statistics_as_parameters': nn.Sequential(
      [nn.Dense(6), nn.BatchNorm(use_running_average=True)]
    ),
    'gru': nn.RNN(nn.GRUCell(4)),
    'lstm': nn.RNN(nn.LSTMCell(4)),
    'lstm_bidirectional': nn.Bidirectional(
      nn.RNN(nn.OptimizedLSTMCell(3)), nn.RNN(nn.OptimizedLSTMCell(3))
    ),
    'rematerialised_dense': nn.Sequential(
      [nn.remat(nn.Dense)(5), jnp.tanh, nn.remat(nn.Dense)(3)]
    ),
    'scanned_layers': _ScannedLayers(),
    'scanned_layers_stacked_on_axis_1': _ScannedLayers(axis=1),
    'bfloat16_compute': _dense_pair(dtype=jnp.bfloat16),
    'bfloat16_params': _dense_pair(
      dtype=jnp.bfloat16, param_dtype=jnp.bfloat16
    ),
    'bfloat16_params_float32_compute': _dense_pair(
      dtype=jnp.float32, param_dtype=jnp.bfloat16
    ),
    'convolution_1d': nn.Conv(5, (3,)),
    'convolution_1d_causal': nn.Conv(5, (3,), padding='CAUSAL'),
  }


def _image_modules() -> dict[str, nn.Module]:
  """Convolutions on [batch, 7, 6, 4]."""
  return {
    'convolution_strided': nn.Conv(5, (3, 2), strides=(2, 1)),
    'convolution_dilated': nn.Conv(5, (3, 2), kernel_dilation=(1, 2)),
    'convolution_input_dilated': nn.Conv(
      5, (3, 2), input_dilation=(2, 1), padding=((1, 1), (0, 1))
    ),
    'convolution_grouped': nn.Conv(6, (3, 3), feature_group_count=2),
    'convolution_depthwise': nn.Conv(8, (3, 3), feature_group_count=4),
    'convolution_circular': nn.Conv(5, (3, 2), padding='CIRCULAR'),
    'convolution_uneven_padding': nn.Conv(5, (3, 2), padding=((0, 1), (2, 0))),
    'convolution_unshared': nn.ConvLocal(3, (3, 2), padding='VALID'),
    'convolution_transposed': nn.ConvTranspose(5, (3, 2), strides=(2, 2)),
    'convolution_transposed_flipped_kernel': nn.ConvTranspose(
      5, (3, 2), strides=(2, 1), transpose_kernel=True
    ),
    'convolution_chain_with_norms': nn.Sequential(
      [
        nn.Conv(8, (3, 3), strides=(2, 2), kernel_dilation=(1, 2)),
        jnp.tanh,
        nn.Conv(8, (3, 3), feature_group_count=4),
        nn.GroupNorm(num_groups=2),
        nn.ConvTranspose(4, (2, 2), strides=(2, 2)),
        nn.BatchNorm(use_running_average=True),
        nn.Conv(4, (2, 2), padding='CIRCULAR'),
      ]
    ),
  }


def _dense_pair(**dtypes) -> nn.Module:
  return nn.Sequential([nn.Dense(5, **dtypes), nn.gelu, nn.Dense(3, **dtypes)])


class _ScannedLayers(nn.Module):
  """Three residual layers whose parameters are stacked along `axis`."""

  axis: int = 0

  @nn.compact
  def __call__(self, x):
    layers = nn.scan(
      _ResidualLayer,
      variable_axes={'params': self.axis},
      split_rngs={'params': True},
      length=3,
    )
    return layers()(x, None)[0]


class _ResidualLayer(nn.Module):
  """A layer in the form that nn.scan takes: (carry, input) -> the same."""

  @nn.compact
  def __call__(self, x, _):
    return x + jnp.tanh(nn.Dense(x.shape[-1])(nn.LayerNorm()(x))), None


def _frozen_batch_norm():
  """Statistics kept with the parameters, their gradient stopped."""
  module = nn.Sequential(
    [nn.Dense(6), nn.BatchNorm(use_running_average=True), jnp.tanh, nn.Dense(3)]
  )
  inputs = random_inputs((_NUM_EXAMPLES, *_SHAPE))

  def output(params, features):
    statistics = lax.stop_gradient(params['batch_stats'])
    variables = {'params': params['params'], 'batch_stats': statistics}
    return module.apply(variables, features['x'])

  params = projection_models.draw_module_params(module, inputs[:1])
  return output_case('batch_norm_frozen', output, params, {'x': inputs})


def _nnx_attention():
  """An nnx model: its parameters are an nnx.State, not a dictionary."""

  def make_model():
    rngs = nnx.Rngs(0)
    return nnx.Sequential(
      nnx.Linear(_SHAPE[-1], 6, rngs=rngs),
      nnx.gelu,
      nnx.LayerNorm(6, rngs=rngs),
      nnx.MultiHeadAttention(2, 6, decode=False, rngs=rngs),
      nnx.Linear(6, 3, rngs=rngs),
    )

  graph, shapes = nnx.split(nnx.eval_shape(make_model))
  return output_case(
    'nnx_attention',
    lambda params, features: nnx.merge(graph, params)(features['x']),
    projection_models.draw_params(shapes),
    {'x': random_inputs((_NUM_EXAMPLES, *_SHAPE))},
  )
