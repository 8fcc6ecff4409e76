"""Makes what published decoders are compared with: weights and their logits.

    pip install torch transformers
    python -m tests.kit.reference_decoders tests/launch/example_tasks/decoders

Small random models of each family, by the reference implementation. What it
writes is kept, so that tests need neither of the two packages.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import transformers

_SIZES = {
  'vocab_size': 64,
  'hidden_size': 32,
  'intermediate_size': 48,
  'num_hidden_layers': 2,
  'num_attention_heads': 4,
  'max_position_embeddings': 64,
}
_GROUPED = {**_SIZES, 'num_key_value_heads': 2}
_LLAMA3 = {
  'rope_type': 'llama3',
  'factor': 8.0,
  'low_freq_factor': 1.0,
  'high_freq_factor': 4.0,
  'original_max_position_embeddings': 32,
}
CONFIGS = {
  'gpt2': transformers.GPT2Config(
    vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64
  ),
  'pythia': transformers.GPTNeoXConfig(**_SIZES, rotary_pct=0.25),
  'neox_in_turn': transformers.GPTNeoXConfig(
    **_SIZES, rotary_pct=1.0, use_parallel_residual=False
  ),
  'llama': transformers.LlamaConfig(**_GROUPED),
  'llama3_tied': transformers.LlamaConfig(
    **_GROUPED,
    tie_word_embeddings=True,
    rope_scaling={**_LLAMA3, 'rope_theta': 500.0},
    rope_theta=500.0,
    head_dim=16,
  ),
  'mistral': transformers.MistralConfig(**_GROUPED, sliding_window=None),
  'qwen2': transformers.Qwen2Config(**_GROUPED, tie_word_embeddings=True),
  'qwen3': transformers.Qwen3Config(**_GROUPED, head_dim=8),
}


def main() -> None:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument('out', type=Path)
  for name, config in CONFIGS.items():
    write(name, config, parser.parse_args().out / name)


def write(name, config, place: Path) -> None:
  """Weights in shards for one of them, and logits for a few rows of tokens."""
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(config)
  with torch.no_grad():
    # As initialised, biases are zero, norms one, and logits hardly differ.
    for parameter in model.parameters():
      parameter.add_(0.1 * torch.randn_like(parameter))
  model.eval()
  tokens = np.random.default_rng(0).integers(0, 64, (3, 40))
  with torch.no_grad():
    logits = model(torch.tensor(tokens)).logits.numpy()
  model.save_pretrained(
    place, max_shard_size='30KB' if name == 'llama' else '1GB'
  )
  (place / 'generation_config.json').unlink(missing_ok=True)
  np.savez_compressed(place / 'logits.npz', tokens=tokens, logits=logits)


if __name__ == '__main__':
  main()
