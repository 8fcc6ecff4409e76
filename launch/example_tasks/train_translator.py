"""Trains the translator of `translation`, stores it and measures its BLEU."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import sacrebleu

from influence_core import types
from launch.example_tasks import (
  corrupted_pairs,
  example,
  subwords,
  texts,
  training,
  translation,
)
from pipeline import ID_KEY, load_arrays, save_arrays

_LABEL_SMOOTHING = 0.1
_DECODED_TOGETHER = 100


def train(
  config: translation.TranslationConfig,
  workdir: str,
  progress: types.ProgressCallback = types.no_progress,
) -> None:
  """Trains and stores the result in `workdir`; config.json comes last."""
  raw = list(example.read_split(config.corpus(config.train_split)))
  corruptions = corrupted_pairs.corrupt(
    [x[ID_KEY] for x in raw],
    [translation.pair_of(x, config, {}) for x in raw],
    fraction=config.corrupt_pairs,
    seed=config.data_seed,
  )
  pairs = [translation.pair_of(x, config, corruptions) for x in raw]
  vocabulary = subwords.Vocabulary.train(
    (text for pair in pairs for text in pair), config.vocabulary_size
  )
  rows = [translation.preprocess(x, config, vocabulary) for x in pairs]
  features = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
  params = training.fit(
    config.initialise(),
    features,
    lambda params, batch, key: _training_loss(config, params, batch, key),
    config.schedule,
    save=training.save_epochs(workdir, config.schedule.num_epochs),
    progress=progress,
  )
  save_arrays(example.checkpoint_path(workdir), params)
  vocabulary.save(texts.vocabulary_path(workdir))
  example.save_json(translation.corruptions_path(workdir), corruptions)
  example.save_config(workdir, config)


def measure(
  config: translation.TranslationConfig, workdir: str
) -> dict[str, float]:
  """`bleu` of the test split, decoded greedily."""
  params = load_arrays(
    example.checkpoint_path(workdir), like=jax.eval_shape(config.initialise)
  )
  vocabulary = subwords.Vocabulary.load(texts.vocabulary_path(workdir))
  return {'bleu': bleu(config, params, vocabulary, 'test')}


def _training_loss(config, params, batch, key) -> jax.Array:
  """Mean over tokens, with smoothed labels and dropout."""
  logits = config.model.apply(
    params, batch['source'], batch['target'], rngs={'dropout': key}
  )
  target = batch['target']
  log_probabilities = jax.nn.log_softmax(logits)
  of_target = jnp.take_along_axis(
    log_probabilities, target[..., None], axis=-1
  )[..., 0]
  of_any = jnp.mean(log_probabilities, axis=-1)
  losses = -(1 - _LABEL_SMOOTHING) * of_target - _LABEL_SMOOTHING * of_any
  return texts.weight_tokens(losses, target, 'mean').sum(axis=1)


def bleu(
  config: translation.TranslationConfig,
  params: types.Params,
  vocabulary: subwords.Vocabulary,
  split: str,
) -> float:
  """BLEU of greedy translations, by sacrebleu's defaults."""
  pairs = [
    translation.pair_of(x, config, {})
    for x in example.read_split(config.corpus(split))
  ]
  rows = [translation.preprocess(x, config, vocabulary) for x in pairs]
  found = translate(config, params, np.stack([row['source'] for row in rows]))
  references = [pair.target for pair in pairs]
  sentences = [vocabulary.text(row) for row in found]
  return sacrebleu.corpus_bleu(sentences, [references]).score


def translate(
  config: translation.TranslationConfig,
  params: types.Params,
  source: np.ndarray,
) -> np.ndarray:
  """The likeliest token at each step, [num_examples, num_tokens] int32."""

  @jax.jit
  def decode(source):
    def step(number, target):
      logits: Any = config.model.apply(params, source, target)
      return target.at[:, number].set(jnp.argmax(logits[:, number], axis=-1))

    # Positions still to be written must not be padding, which is masked.
    start = jnp.full(source.shape, subwords.END_ID, jnp.int32)
    return jax.lax.fori_loop(0, source.shape[1], step, start)

  chunks = range(0, len(source), _DECODED_TOGETHER)
  return np.concatenate(
    [np.asarray(decode(source[i : i + _DECODED_TOGETHER])) for i in chunks]
  )
