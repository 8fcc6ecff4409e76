"""Tasks of full size, untrained: what a basis job takes, not what it finds.

Corpora are real (MNIST enlarged, Multi30k), but for the tokens of language
models; parameters are as initialised.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from launch.example_tasks import decoder, decoder_families
from pipeline import SplitLoss
from pipeline.corpora import tfds_corpus as corpus
from pipeline.tasks import task
from tests.benchmarks import projection_models

# By name: family and content of config.json.
_DECODERS = {
  'gpt2_small': (
    'gpt2',
    {
      **{'vocab_size': 50257, 'n_embd': 768, 'n_layer': 12, 'n_head': 12},
      **{'n_positions': 1024, 'layer_norm_epsilon': 1e-5},
      'activation_function': 'gelu_new',
    },
  ),
  'llama_1b': (
    'llama',
    {
      **{'model_type': 'llama', 'vocab_size': 128_256, 'hidden_size': 2048},
      **{'num_hidden_layers': 16, 'num_attention_heads': 32},
      **{'num_key_value_heads': 8, 'intermediate_size': 8192},
      **{'max_position_embeddings': 131_072, 'rms_norm_eps': 1e-5},
      **{'hidden_act': 'silu', 'rope_theta': 500_000.0},
      'tie_word_embeddings': True,
    },
  ),
}
_VOCABULARY_SIZE = 32_000
_NUM_TOKENS = 32


def vision_transformer(data_dir: str, split: str = 'train') -> task.Task:
  """ViT-L/32: 24 layers of width 1024, 305 M parameters."""
  model = projection_models.VisionTransformer(
    patch_size=32, width=1024, num_layers=24, num_heads=16
  )

  def preprocess(raw):
    image = np.asarray(raw['image'], np.float32) / 255
    large = image.repeat(8, 0).repeat(8, 1).repeat(3, 2)
    return {'image': large, 'label': np.asarray(raw['label'], np.int32)}

  return _task(
    'vit_large_32',
    model,
    [jnp.zeros((1, 224, 224, 3))],
    outputs=lambda params, f: model.apply(params, f['image']),
    output_loss=lambda logits, f: (
      optax.softmax_cross_entropy_with_integer_labels(logits, f['label'])
    ),
    corpus=corpus.TfdsCorpus('mnist', split, data_dir),
    preprocess=preprocess,
  )


def encoder_decoder(data_dir: str, split: str = 'train') -> task.Task:
  """Transformer big: 6 + 6 layers of width 1024, 209 M parameters."""
  model = projection_models.EncoderDecoder(
    vocabulary_size=_VOCABULARY_SIZE, width=1024, num_layers=6, num_heads=16
  )

  def output_loss(logits, features):
    losses = optax.softmax_cross_entropy_with_integer_labels(
      logits, features['target']
    )
    mask = features['target'] != projection_models.PAD_ID
    return jnp.sum(losses * mask, axis=1)

  return _task(
    'transformer_big',
    model,
    [jnp.zeros((1, _NUM_TOKENS), int)] * 2,
    outputs=lambda params, f: model.apply(params, f['source'], f['target']),
    output_loss=output_loss,
    corpus=corpus.TfdsCorpus('multi30k', split, data_dir),
    preprocess=lambda raw: {
      'source': _word_ids(raw['de']),
      'target': _word_ids(raw['en']),
    },
  )


def language_model(
  data_dir: str,
  size: str,
  num_tokens: str = '1024',
  dtype: str = 'float32',
  split: str = 'train',
) -> task.Task:
  """A decoder of a published size on as many tokens as it is given.

  Tokens are checksums of the words of a caption and of their places: of random
  parameters no others would tell more.
  """
  family, content = _DECODERS[size]
  config = decoder_families.FAMILIES[family].configure(content)
  model = decoder.Decoder(config, is_rematerialised=True)
  length = int(num_tokens)

  def preprocess(raw):
    words = raw['en'].split()
    ids = [
      zlib.crc32(b'%d %s' % (place, words[place % len(words)]))
      for place in range(length)
    ]
    return {'tokens': np.array(ids, np.int64) % config.vocabulary_size}

  def outputs(params, features):
    return model.apply(params, features['tokens'][:, :-1])

  def output_loss(logits, features):
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, features['tokens'][:, 1:]
    ).sum(axis=1)

  def load_parameters():
    return jax.tree.map(
      lambda leaf: np.asarray(leaf, jnp.dtype(dtype)),
      decoder.initialise(config),
    )

  split_loss = SplitLoss(outputs, output_loss)
  return task.Task(
    name=size,
    load_parameters=load_parameters,
    per_example_loss=split_loss.per_example_loss,
    corpus=corpus.TfdsCorpus('multi30k', split, data_dir),
    preprocess=preprocess,
    split_loss=split_loss,
  )


def _task(
  name, model, inputs, *, outputs, output_loss, corpus, preprocess
) -> task.Task:
  return task.Task(
    name=name,
    load_parameters=lambda: jax.tree.map(
      np.asarray, jax.jit(model.init)(jax.random.key(0), *inputs)
    ),
    per_example_loss=lambda params, f: output_loss(outputs(params, f), f),
    corpus=corpus,
    preprocess=preprocess,
    split_loss=SplitLoss(outputs, output_loss),
  )


def _word_ids(text: bytes) -> np.ndarray:
  """[_NUM_TOKENS] ids of words by checksum, padded."""
  ids = [1 + zlib.crc32(word) % (_VOCABULARY_SIZE - 1) for word in text.split()]
  row = np.full(_NUM_TOKENS, projection_models.PAD_ID, np.int32)
  row[: len(ids)] = ids[:_NUM_TOKENS]
  return row
