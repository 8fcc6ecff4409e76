"""Tasks of full size, untrained: what a basis job takes, not what it finds.

Corpora are real (MNIST enlarged, Multi30k), parameters are as initialised.
"""

import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pipeline import SplitLoss
from pipeline.corpora import tfds_corpus as corpus
from pipeline.tasks import task
from tests.benchmarks import projection_models

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
