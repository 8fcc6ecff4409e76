"""Published decoder-only Transformers: GPT-2, GPT-NeoX, Llama, Qwen.

One module for all; what differs is configuration. Layers are scanned, so that
a parameter has a leading axis of layers, and compiling takes as long for many
layers as for one. `pretrained_decoder` reads the weights.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

ACTIVATIONS: Mapping[str, Callable[[jax.Array], jax.Array]] = {
  'gelu': lambda x: nn.gelu(x, approximate=False),
  'gelu_new': nn.gelu,
  'gelu_pytorch_tanh': nn.gelu,
  'relu': nn.relu,
  'silu': nn.silu,
}


@dataclasses.dataclass(frozen=True)
class RopeScaling:
  """How positions beyond those of the first training are turned by.

  Attributes:
    factor: all frequencies are divided by, or the low ones alone.
    low_frequency_factor: of wavelengths that are scaled as a whole; None where
      all are.
    high_frequency_factor: of those that are left as they are.
    original_positions: of the first training.

  References:
    Grattafiori et al., "The Llama 3 Herd of Models", 2024, and its published
    code, for the smooth change between low and high frequencies.
  """

  factor: float
  low_frequency_factor: float | None = None
  high_frequency_factor: float = 4.0
  original_positions: int = 8192


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """What a decoder is made of.

  Attributes:
    vocabulary_size: tokens.
    width: of the representations.
    num_layers: blocks.
    num_heads: of queries.
    num_key_value_heads: of keys and values, which queries share in groups.
    head_width: of each head.
    hidden_width: of the MLP.
    num_positions: tokens that learned positions are there for.
    norm: layer norms with biases, or root mean squares without.
    norm_epsilon: added to variances.
    activation: name in `ACTIVATIONS`.
    is_gated: whether the MLP multiplies by a second product (SwiGLU).
    is_parallel: whether attention and MLP read the same input (GPT-NeoX).
    is_tied: whether the output has the weights of the embedding.
    has_attention_bias: of queries, keys and values.
    has_output_bias: of what attention gives.
    has_mlp_bias: of the MLP.
    has_head_norms: of queries and keys (Qwen3).
    rotary_width: entries of a head that positions turn; 0 for learned
      positions.
    rope_theta: base of the frequencies.
    rope_scaling: of them; None for none.
  """

  vocabulary_size: int
  width: int
  num_layers: int
  num_heads: int
  num_key_value_heads: int
  head_width: int
  hidden_width: int
  num_positions: int
  norm: Literal['layer', 'rms']
  norm_epsilon: float
  activation: str
  is_gated: bool = False
  is_parallel: bool = False
  is_tied: bool = False
  has_attention_bias: bool = False
  has_output_bias: bool = False
  has_mlp_bias: bool = False
  has_head_norms: bool = False
  rotary_width: int = 0
  rope_theta: float = 10_000.0
  rope_scaling: RopeScaling | None = None

  def make_norm(self, name: str) -> nn.Module:
    if self.norm == 'rms':
      return nn.RMSNorm(epsilon=self.norm_epsilon, name=name)
    return nn.LayerNorm(epsilon=self.norm_epsilon, name=name)

  def frequencies(self) -> np.ndarray:
    """[rotary_width / 2] float32 angles that a position turns pairs by."""
    powers = np.arange(0, self.rotary_width, 2) / self.rotary_width
    plain = self.rope_theta**-powers
    scaling = self.rope_scaling
    if scaling is None:
      return plain.astype(np.float32)
    scaled = plain / scaling.factor
    if scaling.low_frequency_factor is None:
      return scaled.astype(np.float32)
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    turns = scaling.original_positions * plain / (2 * math.pi)
    share = np.clip((turns - low) / (high - low), 0, 1)
    return ((1 - share) * scaled + share * plain).astype(np.float32)


class Decoder(nn.Module):
  """Logits of the next token.

  Attributes:
    config: what it is made of.
    is_rematerialised: whether the inside of a block is computed again for its
      gradient, instead of kept.
  """

  config: DecoderConfig
  is_rematerialised: bool = False

  @nn.compact
  def __call__(
    self,
    tokens: jax.Array,
    positions: jax.Array | None = None,
    documents: jax.Array | None = None,
  ) -> jax.Array:
    """[batch, tokens] int32 -> [batch, tokens, vocabulary_size] float32.

    The logits at a position are of the token after it.

    Args:
      tokens: ids.
      positions: of each token in its document; None for 0, 1, ...
      documents: number of the document of each token, where several stand in a
        row; none sees another.
    """
    config = self.config
    if positions is None:
      positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    embedding = nn.Embed(config.vocabulary_size, config.width, name='embedding')
    x = embedding(tokens)
    if not config.rotary_width:
      learned = nn.Embed(config.num_positions, config.width, name='positions')
      x = x + learned(positions)
    mask = None
    if documents is not None:
      mask = documents[:, None, :, None] == documents[:, None, None, :]
    block = nn.remat(Block) if self.is_rematerialised else Block
    blocks = nn.scan(
      block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      in_axes=(nn.broadcast, nn.broadcast),
      length=config.num_layers,
    )
    x, _ = blocks(config, name='blocks')(x, positions, mask)
    x = config.make_norm('norm')(x)
    if config.is_tied:
      logits = embedding.attend(x)
    else:
      logits = nn.Dense(config.vocabulary_size, use_bias=False, name='output')(
        x
      )
    return logits.astype(jnp.float32)


class Block(nn.Module):
  """Attention and an MLP, each after a norm and added to what it read."""

  config: DecoderConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, positions: jax.Array, mask: jax.Array | None
  ) -> tuple[jax.Array, None]:
    config = self.config
    normed = config.make_norm('attention_norm')(x)
    attended = Attention(config, name='attention')(normed, positions, mask)
    read = x if config.is_parallel else x + attended
    hidden = Mlp(config, name='mlp')(config.make_norm('mlp_norm')(read))
    return x + attended + hidden, None


class Attention(nn.Module):
  """Causal attention of groups of queries to the same keys and values."""

  config: DecoderConfig

  @nn.compact
  def __call__(
    self, x: jax.Array, positions: jax.Array, mask: jax.Array | None
  ) -> jax.Array:
    config = self.config

    def heads(name: str, count: int) -> jax.Array:
      flat = nn.Dense(
        count * config.head_width,
        use_bias=config.has_attention_bias,
        name=name,
      )(x)
      return flat.reshape(*flat.shape[:2], count, config.head_width)

    queries = heads('query', config.num_heads)
    keys = heads('key', config.num_key_value_heads)
    values = heads('value', config.num_key_value_heads)
    if config.has_head_norms:
      queries = config.make_norm('query_norm')(queries)
      keys = config.make_norm('key_norm')(keys)
    if config.rotary_width:
      queries = _turned(queries, positions, config)
      keys = _turned(keys, positions, config)
    attended = jax.nn.dot_product_attention(
      queries, keys, values, mask=mask, is_causal=True
    )
    return nn.Dense(
      config.width, use_bias=config.has_output_bias, name='output'
    )(attended.reshape(*x.shape[:2], -1))


class Mlp(nn.Module):
  """One hidden layer, gated or not."""

  config: DecoderConfig

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    config = self.config

    def dense(name: str, width: int) -> nn.Dense:
      return nn.Dense(width, use_bias=config.has_mlp_bias, name=name)

    activate = ACTIVATIONS[config.activation]
    if config.is_gated:
      hidden = activate(dense('gate', config.hidden_width)(x))
      hidden = hidden * dense('up', config.hidden_width)(x)
    else:
      hidden = activate(dense('up', config.hidden_width)(x))
    return dense('down', config.width)(hidden)


def _turned(
  x: jax.Array, positions: jax.Array, config: DecoderConfig
) -> jax.Array:
  """[batch, tokens, heads, head_width] turned by the positions of the tokens.

  Pairs are an entry of the first half of what is turned and one of the second
  (Su et al., "RoFormer", 2021, in the order of the published weights).
  """
  angles = positions[..., None, None] * config.frequencies()
  cosine, sine = jnp.cos(angles), jnp.sin(angles)
  turned, kept = jnp.split(x, [config.rotary_width], axis=-1)
  first, second = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
  both = first * cosine - second * sine, second * cosine + first * sine
  return jnp.concatenate(
    [*(one.astype(x.dtype) for one in both), kept], axis=-1
  )


def initialise(config: DecoderConfig, seed: int = 0) -> Any:
  """Random parameters: to train from, or to see what a size takes."""
  tokens = jnp.zeros((1, 2), jnp.int32)
  return jax.jit(Decoder(config).init)(jax.random.key(seed), tokens)
