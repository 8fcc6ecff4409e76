"""Models that gradient projection is measured on, and tested on when tiny.

Each function returns a model as a `ProjectionCase`. The defaults are the
benchmark; tests pass small sizes. Parameters have the shapes that Flax gives
them, but are drawn here from a fixed seed: no bias is zero, nothing compiles.
"""

from collections.abc import Sequence
import dataclasses
import functools
import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core import types

NUM_EXAMPLES = 64
PAD_ID = 0


@dataclasses.dataclass(frozen=True)
class ProjectionCase:
  """A loss whose per-example gradients are to be projected.

  Attributes:
    name: unique among the cases used together.
    per_example_loss: (params, features) -> [batch] float32 losses, independent
      between examples, of any batch size.
    params: pytree of arrays.
    features: dict of [num_examples, ...] arrays.
  """

  name: str
  per_example_loss: types.PerExampleLoss
  params: types.Params
  features: types.Features


def draw_params(shapes: types.Params, *, seed: int = 0) -> types.Params:
  """Random arrays in the place of `shapes`, a pytree of ShapeDtypeStruct.

  Weights have variance 1 / fan-in, scales and variances are near one.
  """
  generator = np.random.default_rng(seed)

  def draw(key_path, leaf):
    values = generator.normal(size=leaf.shape)
    if re.search(r'\b(scale|var)\b', jax.tree_util.keystr(key_path)):
      values = 1 + 0.1 * values
    elif len(leaf.shape) < 2:
      values = 0.1 * values
    else:
      values = values / math.sqrt(math.prod(leaf.shape[:-1]))
    return jnp.asarray(values, leaf.dtype)

  return jax.tree_util.tree_map_with_path(draw, shapes)


def draw_module_params(module: nn.Module, *inputs) -> types.Params:
  """Random variables of a Flax module: {'params': ..., ...}."""
  return draw_params(jax.eval_shape(module.init, jax.random.key(0), *inputs))


def mlp(
  *,
  sizes: Sequence[int] = (784, 1024, 1024, 10),
  num_examples: int = NUM_EXAMPLES,
) -> ProjectionCase:
  """Dense layers with relu; cross entropy of the label. 1.86 M parameters."""
  layers = [nn.Dense(sizes[1])]
  for size in sizes[2:]:
    layers += [nn.relu, nn.Dense(size)]
  return _classifier('mlp', nn.Sequential(layers), (sizes[0],), num_examples)


def convolutional(
  *,
  image_size: int = 28,
  channels: Sequence[int] = (32, 64),
  hidden: int = 256,
  num_examples: int = NUM_EXAMPLES,
) -> ProjectionCase:
  """The small convolutional network for MNIST. 0.82 M parameters."""
  halve = functools.partial(nn.avg_pool, window_shape=(2, 2), strides=(2, 2))
  layers = []
  for num_channels in channels:
    layers += [nn.Conv(num_channels, (3, 3)), nn.relu, halve]
  layers += [lambda images: images.reshape(len(images), -1)]
  layers += [nn.Dense(hidden), nn.relu, nn.Dense(10)]
  shape = (image_size, image_size, 1)
  return _classifier(
    'convolutional', nn.Sequential(layers), shape, num_examples
  )


def vision_transformer(
  *, image_size: int = 28, num_examples: int = NUM_EXAMPLES, **sizes: int
) -> ProjectionCase:
  """Pre-LN ViT: 49 patches and a class token. 10.7 M parameters.

  `sizes` are fields of `VisionTransformer`.
  """
  model = VisionTransformer(**sizes)
  shape = (image_size, image_size, 3)
  return _classifier('vision_transformer', model, shape, num_examples)


def language_model(
  *, scanned: bool = False, remat: bool = False, **sizes: int
) -> ProjectionCase:
  """Decoder-only Transformer; summed next-token loss. 4.22 M parameters.

  Args:
    scanned: layers run in nn.scan, their parameters stacked on axis 0.
    remat: each layer recomputes its activations in the backward pass.
    **sizes: num_tokens, num_examples and other fields of `LanguageModel`.
  """
  case = language_model_token_losses(scanned=scanned, remat=remat, **sizes)

  def per_example_loss(params, features):
    return case.per_example_loss(params, features).sum(axis=1)

  name = case.name.removesuffix('_token_losses')
  return dataclasses.replace(case, name=name, per_example_loss=per_example_loss)


def language_model_token_losses(
  *,
  scanned: bool = False,
  remat: bool = False,
  num_tokens: int = 64,
  num_examples: int = NUM_EXAMPLES,
  **sizes: int,
) -> ProjectionCase:
  """The language model with one loss per token instead of per example.

  Unlike in other cases, `per_example_loss` returns [batch, num_tokens] float32;
  its sum over tokens is the loss of `language_model`. Examples hold one token
  more than the model reads, so that all its positions have a target.
  """
  model = LanguageModel(scanned=scanned, remat=remat, **sizes)
  tokens = np.random.default_rng(1).integers(
    model.vocabulary_size, size=(num_examples, num_tokens + 1)
  )

  def token_losses(params, features):
    logits = model.apply(params, features['tokens'][:, :-1])
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, features['tokens'][:, 1:]
    )  # [batch, num_tokens]

  variant = '_scanned' * scanned + '_remat' * remat
  return ProjectionCase(
    name=f'language_model{variant}_token_losses',
    per_example_loss=token_losses,
    params=draw_module_params(model, tokens[:1, :-1]),
    features={'tokens': jnp.asarray(tokens, jnp.int32)},
  )


def encoder_decoder(
  *, num_tokens: int = 32, num_examples: int = NUM_EXAMPLES, **sizes: int
) -> ProjectionCase:
  """Translation Transformer with padding. 6.6 M parameters.

  Source, target and head share one embedding. The loss of an example is the
  mean over its target tokens that are no padding. `sizes` are fields of
  `EncoderDecoder`.
  """
  model = EncoderDecoder(**sizes)
  generator = np.random.default_rng(1)

  def padded_tokens():
    shape = (num_examples, num_tokens)
    lengths = generator.integers(num_tokens // 2, num_tokens + 1, shape[0])
    tokens = generator.integers(PAD_ID + 1, model.vocabulary_size, shape)
    return np.where(np.arange(num_tokens) < lengths[:, None], tokens, PAD_ID)

  def per_example_loss(params, features):
    target = features['target']
    logits = model.apply(params, features['source'], target)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
    return jnp.mean(losses, axis=1, where=target != PAD_ID)

  source, target = padded_tokens(), padded_tokens()
  return ProjectionCase(
    name='encoder_decoder',
    per_example_loss=per_example_loss,
    params=draw_module_params(model, source[:1], target[:1]),
    features={
      'source': jnp.asarray(source, jnp.int32),
      'target': jnp.asarray(target, jnp.int32),
    },
  )


class TransformerBlock(nn.Module):
  """Pre-LN: self-attention, attention to `memory` if there is one, MLP."""

  num_heads: int

  @nn.compact
  def __call__(self, x, mask=None, memory=None, memory_mask=None):
    def attention():
      return nn.MultiHeadDotProductAttention(self.num_heads, deterministic=True)

    x = x + attention()(nn.LayerNorm()(x), mask=mask)
    if memory is not None:
      x = x + attention()(nn.LayerNorm()(x), memory, mask=memory_mask)
    hidden = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
    return x + nn.Dense(x.shape[-1])(hidden)


class LanguageModel(nn.Module):
  """[batch, num_tokens] int -> [batch, num_tokens, vocabulary_size] logits."""

  vocabulary_size: int = 4096
  width: int = 256
  num_layers: int = 4
  num_heads: int = 8
  scanned: bool = False
  remat: bool = False

  @nn.compact
  def __call__(self, tokens):
    block = TransformerBlock
    if self.remat:
      # A scan keeps the compiler from merging the two passes all by itself.
      block = nn.remat(block, prevent_cse=not self.scanned)
    embedding = nn.Embed(self.vocabulary_size, self.width)
    x = embedding(tokens)
    x += _positions(self, 'positions', x)
    mask = nn.make_causal_mask(tokens)
    if self.scanned:
      x, _ = nn.scan(
        lambda layer, x, mask: (layer(x, mask), None),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=nn.broadcast,
        length=self.num_layers,
      )(block(self.num_heads), x, mask)
    else:
      for _ in range(self.num_layers):
        x = block(self.num_heads)(x, mask)
    return embedding.attend(nn.LayerNorm()(x))


class VisionTransformer(nn.Module):
  """[batch, height, width, 3] images -> [batch, 10] logits."""

  patch_size: int = 4
  width: int = 384
  num_layers: int = 6
  num_heads: int = 6

  @nn.compact
  def __call__(self, images):
    patch = (self.patch_size, self.patch_size)
    x = nn.Conv(self.width, patch, strides=patch, padding='VALID')(images)
    x = x.reshape(len(x), -1, self.width)  # [batch, patches, width]
    class_token = self.param('class_token', nn.initializers.zeros, self.width)
    class_tokens = jnp.broadcast_to(class_token, (len(x), 1, self.width))
    x = jnp.concatenate([class_tokens, x], axis=1)
    x += _positions(self, 'positions', x)
    for _ in range(self.num_layers):
      x = TransformerBlock(self.num_heads)(x)
    return nn.Dense(10)(nn.LayerNorm()(x)[:, 0])


class EncoderDecoder(nn.Module):
  """Two [batch, num_tokens] int -> [batch, num_tokens, vocabulary_size]."""

  vocabulary_size: int = 4096
  width: int = 256
  num_layers: int = 3
  num_heads: int = 8

  @nn.compact
  def __call__(self, source, target):
    embedding = nn.Embed(self.vocabulary_size, self.width)
    is_source, is_target = source != PAD_ID, target != PAD_ID
    memory = embedding(source)
    memory += _positions(self, 'source_positions', memory)
    mask = nn.make_attention_mask(is_source, is_source)
    for _ in range(self.num_layers):
      memory = TransformerBlock(self.num_heads)(memory, mask)
    memory = nn.LayerNorm()(memory)
    # Each position reads the target before it; the first reads padding.
    x = embedding(jnp.pad(target[:, :-1], ((0, 0), (1, 0))))
    x += _positions(self, 'target_positions', x)
    mask = nn.combine_masks(
      nn.make_attention_mask(is_target, is_target), nn.make_causal_mask(target)
    )
    memory_mask = nn.make_attention_mask(is_target, is_source)
    for _ in range(self.num_layers):
      x = TransformerBlock(self.num_heads)(x, mask, memory, memory_mask)
    return embedding.attend(nn.LayerNorm()(x))


def _positions(module, name, x):
  """Learned position embedding for x: [tokens, width]."""
  return module.param(name, nn.initializers.normal(0.02), x.shape[1:])


def _classifier(name, model, shape, num_examples) -> ProjectionCase:
  """Cross entropy of ten classes on random inputs of the given shape."""
  generator = np.random.default_rng(1)
  inputs = generator.normal(size=(num_examples, *shape)).astype(np.float32)
  labels = generator.integers(10, size=num_examples)

  def per_example_loss(params, features):
    return optax.softmax_cross_entropy_with_integer_labels(
      model.apply(params, features['inputs']), features['labels']
    )

  return ProjectionCase(
    name=name,
    per_example_loss=per_example_loss,
    params=draw_module_params(model, inputs[:1]),
    features={
      'inputs': jnp.asarray(inputs),
      'labels': jnp.asarray(labels, jnp.int32),
    },
  )
