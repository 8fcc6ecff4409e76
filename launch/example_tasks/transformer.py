"""Transformers of the example tasks: for translation, text and images.

Layers normalise before they work (pre-LN), with learned positions. Dropout is
for training alone: without `dropout` among the random numbers there is none,
as a loss for influence must be.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

PAD_ID = 0


class Block(nn.Module):
  """Self-attention, attention to `memory` if there is one, and an MLP.

  Attributes:
    num_heads: of each attention.
    dropout_rate: of what each part adds, in training.
  """

  num_heads: int
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(
    self,
    x: jax.Array,
    mask: jax.Array | None = None,
    memory: jax.Array | None = None,
    memory_mask: jax.Array | None = None,
  ) -> jax.Array:
    """[batch, tokens, width] -> the same shape."""
    x = x + self._drop(self._attention()(nn.LayerNorm()(x), mask=mask))
    if memory is not None:
      query = nn.LayerNorm()(x)
      x = x + self._drop(self._attention()(query, memory, mask=memory_mask))
    hidden = nn.gelu(nn.Dense(4 * x.shape[-1])(nn.LayerNorm()(x)))
    return x + self._drop(nn.Dense(x.shape[-1])(hidden))

  def _attention(self) -> nn.Module:
    return nn.MultiHeadDotProductAttention(self.num_heads, deterministic=True)

  def _drop(self, x: jax.Array) -> jax.Array:
    return nn.Dropout(
      self.dropout_rate, deterministic=not self.has_rng('dropout')
    )(x)


class EncoderDecoder(nn.Module):
  """Translates; source, target and output share one embedding.

  Attributes:
    vocabulary_size: tokens of both languages.
    width: of the representations.
    num_layers: of the encoder, and of the decoder.
    num_heads: of each attention.
    dropout_rate: in training.
  """

  vocabulary_size: int
  width: int
  num_layers: int
  num_heads: int
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, source: jax.Array, target: jax.Array) -> jax.Array:
    """Two [batch, tokens] int32, padded -> [batch, tokens, vocabulary_size].

    The logits at a position are of the target there, given those before it.
    """
    embedding = nn.Embed(self.vocabulary_size, self.width)
    is_source, is_target = source != PAD_ID, target != PAD_ID
    memory = embedding(source) + _positions(self, 'source_positions', source)
    mask = nn.make_attention_mask(is_source, is_source)
    for _ in range(self.num_layers):
      memory = Block(self.num_heads, self.dropout_rate)(memory, mask)
    memory = nn.LayerNorm()(memory)
    # Each position reads the target before it; the first reads padding.
    x = embedding(jnp.pad(target[:, :-1], ((0, 0), (1, 0))))
    x += _positions(self, 'target_positions', target)
    mask = nn.combine_masks(
      nn.make_attention_mask(is_target, jnp.ones_like(is_target)),
      nn.make_causal_mask(target),
    )
    memory_mask = nn.make_attention_mask(jnp.ones_like(is_target), is_source)
    for _ in range(self.num_layers):
      x = Block(self.num_heads, self.dropout_rate)(x, mask, memory, memory_mask)
    return embedding.attend(nn.LayerNorm()(x))


class LanguageModel(nn.Module):
  """Predicts the next token; input and output share one embedding.

  Attributes:
    vocabulary_size: tokens.
    width: of the representations.
    num_layers: of the decoder.
    num_heads: of each attention.
    dropout_rate: in training.
  """

  vocabulary_size: int
  width: int
  num_layers: int
  num_heads: int
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, tokens: jax.Array) -> jax.Array:
    """[batch, tokens] int32 -> [batch, tokens, vocabulary_size].

    The logits at a position are of the token there, given those before it.
    """
    embedding = nn.Embed(self.vocabulary_size, self.width)
    x = embedding(jnp.pad(tokens[:, :-1], ((0, 0), (1, 0))))
    x += _positions(self, 'positions', tokens)
    mask = nn.make_causal_mask(tokens)
    for _ in range(self.num_layers):
      x = Block(self.num_heads, self.dropout_rate)(x, mask)
    return embedding.attend(nn.LayerNorm()(x))


class VisionTransformer(nn.Module):
  """Classifies images by patches and a class token (Dosovitskiy et al., 2021).

  Attributes:
    num_classes: of the images.
    patch_size: height and width of a patch in pixels.
    width: of the representations.
    num_layers: of the encoder.
    num_heads: of each attention.
    dropout_rate: in training.
  """

  num_classes: int
  patch_size: int
  width: int
  num_layers: int
  num_heads: int
  dropout_rate: float = 0.0

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> [batch, num_classes] logits."""
    patch = (self.patch_size, self.patch_size)
    x = nn.Conv(self.width, patch, strides=patch, padding='VALID')(images)
    x = x.reshape(len(x), -1, self.width)  # [batch, patches, width]
    token = self.param('class_token', nn.initializers.zeros, (self.width,))
    tokens = jnp.broadcast_to(token, (len(x), 1, self.width))
    x = jnp.concatenate([tokens, x], axis=1)
    x += _positions(self, 'positions', x[:, :, 0])
    for _ in range(self.num_layers):
      x = Block(self.num_heads, self.dropout_rate)(x)
    return nn.Dense(self.num_classes)(nn.LayerNorm()(x)[:, 0])


def _positions(module: nn.Module, name: str, tokens: jax.Array) -> jax.Array:
  """[tokens, width] learned positions for [batch, tokens]."""
  shape = (tokens.shape[1], module.width)
  return module.param(name, nn.initializers.normal(0.02), shape)
