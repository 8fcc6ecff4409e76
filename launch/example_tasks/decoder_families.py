"""How published families of decoders are configured, and name their weights."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from influence_core import errors
from launch.example_tasks import decoder

_ATTENTION = 'params/blocks/attention/'
FUSED = tuple(f'{_ATTENTION}{name}' for name in ('query', 'key', 'value'))


class Family(NamedTuple):
  """How the weights of a kind of models are stored.

  Attributes:
    configure: content of config.json -> what the decoder is made of.
    prefix: of the names of all weights but the output's, in a model with one.
    output: module of the output.
    modules: their module by ours; {} is the number of the layer.
    is_transposed: whether kernels are stored [output, input].
    split: (fused weights of queries, keys and values, config) -> the three,
      [input, output] or [output] each; None where they are stored apart.
  """

  configure: Callable[[Mapping[str, Any]], decoder.DecoderConfig]
  prefix: str
  output: str
  modules: Mapping[str, str]
  is_transposed: bool = True
  split: (
    Callable[[np.ndarray, decoder.DecoderConfig], list[np.ndarray]] | None
  ) = None


def _gpt2(content: Mapping[str, Any]) -> decoder.DecoderConfig:
  _refuse(content, scale_attn_by_inverse_layer_idx=True)
  width = content['n_embd']
  return decoder.DecoderConfig(
    vocabulary_size=content['vocab_size'],
    width=width,
    num_layers=content['n_layer'],
    num_heads=content['n_head'],
    num_key_value_heads=content['n_head'],
    head_width=width // content['n_head'],
    hidden_width=content.get('n_inner') or 4 * width,
    num_positions=content['n_positions'],
    norm='layer',
    norm_epsilon=content['layer_norm_epsilon'],
    activation=content['activation_function'],
    is_tied=content.get('tie_word_embeddings', True),
    has_attention_bias=True,
    has_output_bias=True,
    has_mlp_bias=True,
  )


def _gpt_neox(content: Mapping[str, Any]) -> decoder.DecoderConfig:
  width, num_heads = content['hidden_size'], content['num_attention_heads']
  rope = content.get('rope_parameters') or {}
  share = rope.get('partial_rotary_factor', content.get('rotary_pct', 0.25))
  theta = rope.get('rope_theta', content.get('rotary_emb_base', 10_000))
  has_bias = content.get('attention_bias', True)
  return decoder.DecoderConfig(
    vocabulary_size=content['vocab_size'],
    width=width,
    num_layers=content['num_hidden_layers'],
    num_heads=num_heads,
    num_key_value_heads=num_heads,
    head_width=width // num_heads,
    hidden_width=content['intermediate_size'],
    num_positions=content['max_position_embeddings'],
    norm='layer',
    norm_epsilon=content['layer_norm_eps'],
    activation=content['hidden_act'],
    is_parallel=content.get('use_parallel_residual', True),
    is_tied=content.get('tie_word_embeddings', False),
    has_attention_bias=has_bias,
    has_output_bias=has_bias,
    has_mlp_bias=True,
    rotary_width=int(share * (width // num_heads)),
    rope_theta=theta,
    rope_scaling=_rope_scaling(content),
  )


def _llama(content: Mapping[str, Any]) -> decoder.DecoderConfig:
  kind = content['model_type']
  num_heads = content['num_attention_heads']
  head_width = content.get('head_dim') or content['hidden_size'] // num_heads
  if content.get('use_sliding_window', kind == 'mistral'):
    _refuse(content, sliding_window=content.get('sliding_window') or False)
  rope = content.get('rope_parameters') or {}
  has_bias = content.get('attention_bias', False)
  return decoder.DecoderConfig(
    vocabulary_size=content['vocab_size'],
    width=content['hidden_size'],
    num_layers=content['num_hidden_layers'],
    num_heads=num_heads,
    num_key_value_heads=content.get('num_key_value_heads') or num_heads,
    head_width=head_width,
    hidden_width=content['intermediate_size'],
    num_positions=content['max_position_embeddings'],
    norm='rms',
    norm_epsilon=content['rms_norm_eps'],
    activation=content['hidden_act'],
    is_gated=True,
    is_tied=content.get('tie_word_embeddings', False),
    # Qwen2 has biases there and says so nowhere.
    has_attention_bias=kind == 'qwen2' or has_bias,
    has_output_bias=kind != 'qwen2' and has_bias,
    has_mlp_bias=content.get('mlp_bias', False),
    has_head_norms=kind == 'qwen3',
    rotary_width=head_width,
    rope_theta=rope.get('rope_theta', content.get('rope_theta', 10_000.0)),
    rope_scaling=_rope_scaling(content),
  )


def _rope_scaling(content: Mapping[str, Any]) -> decoder.RopeScaling | None:
  """Of the two that are published most; config.json has it in two forms."""
  found = content.get('rope_parameters') or content.get('rope_scaling') or {}
  kind = found.get('rope_type', found.get('type', 'default'))
  if kind == 'default':
    return None
  if kind == 'linear':
    return decoder.RopeScaling(found['factor'])
  if kind == 'llama3':
    return decoder.RopeScaling(
      found['factor'],
      found['low_freq_factor'],
      found['high_freq_factor'],
      found['original_max_position_embeddings'],
    )
  raise errors.InputError(
    f'config.json has rope_type {kind!r}, expected default, linear or llama3'
  )


def _refuse(content: Mapping[str, Any], **unknown: Any) -> None:
  """Raises where config.json has something that is not implemented."""
  for key, value in unknown.items():
    if value and content.get(key) == value:
      raise errors.InputError(
        f'config.json has {key} {value!r}, which is not implemented; write a '
        'task of your own'
      )


def _split_in_turn(
  array: np.ndarray, config: decoder.DecoderConfig
) -> list[np.ndarray]:
  """[..., 3 * width] of GPT-2."""
  del config
  return np.split(array, 3, axis=-1)


def _split_by_head(
  array: np.ndarray, config: decoder.DecoderConfig
) -> list[np.ndarray]:
  """[heads * 3 * head_width, ...] of GPT-NeoX."""
  heads = array.reshape(config.num_heads, 3, config.head_width, -1)
  parts = [heads[:, part].reshape(config.width, -1) for part in range(3)]
  return [part.T if array.ndim == 2 else part[:, 0] for part in parts]


_BLOCK = 'params/blocks/'
_GPT2 = Family(
  _gpt2,
  'transformer.',
  'lm_head',
  {
    'params/embedding': 'wte',
    'params/positions': 'wpe',
    'params/norm': 'ln_f',
    f'{_BLOCK}attention_norm': 'h.{}.ln_1',
    f'{_BLOCK}mlp_norm': 'h.{}.ln_2',
    **dict.fromkeys(FUSED, 'h.{}.attn.c_attn'),
    f'{_ATTENTION}output': 'h.{}.attn.c_proj',
    f'{_BLOCK}mlp/up': 'h.{}.mlp.c_fc',
    f'{_BLOCK}mlp/down': 'h.{}.mlp.c_proj',
  },
  is_transposed=False,
  split=_split_in_turn,
)
_GPT_NEOX = Family(
  _gpt_neox,
  'gpt_neox.',
  'embed_out',
  {
    'params/embedding': 'embed_in',
    'params/norm': 'final_layer_norm',
    f'{_BLOCK}attention_norm': 'layers.{}.input_layernorm',
    f'{_BLOCK}mlp_norm': 'layers.{}.post_attention_layernorm',
    **dict.fromkeys(FUSED, 'layers.{}.attention.query_key_value'),
    f'{_ATTENTION}output': 'layers.{}.attention.dense',
    f'{_BLOCK}mlp/up': 'layers.{}.mlp.dense_h_to_4h',
    f'{_BLOCK}mlp/down': 'layers.{}.mlp.dense_4h_to_h',
  },
  split=_split_by_head,
)
_LLAMA = Family(
  _llama,
  'model.',
  'lm_head',
  {
    'params/embedding': 'embed_tokens',
    'params/norm': 'norm',
    f'{_BLOCK}attention_norm': 'layers.{}.input_layernorm',
    f'{_BLOCK}mlp_norm': 'layers.{}.post_attention_layernorm',
    f'{_ATTENTION}query': 'layers.{}.self_attn.q_proj',
    f'{_ATTENTION}key': 'layers.{}.self_attn.k_proj',
    f'{_ATTENTION}value': 'layers.{}.self_attn.v_proj',
    f'{_ATTENTION}query_norm': 'layers.{}.self_attn.q_norm',
    f'{_ATTENTION}key_norm': 'layers.{}.self_attn.k_norm',
    f'{_ATTENTION}output': 'layers.{}.self_attn.o_proj',
    f'{_BLOCK}mlp/gate': 'layers.{}.mlp.gate_proj',
    f'{_BLOCK}mlp/up': 'layers.{}.mlp.up_proj',
    f'{_BLOCK}mlp/down': 'layers.{}.mlp.down_proj',
  },
)
FAMILIES = {
  'gpt2': _GPT2,
  'gpt_neox': _GPT_NEOX,
  'llama': _LLAMA,
  'mistral': _LLAMA,
  'qwen2': _LLAMA,
  'qwen3': _LLAMA,
}
