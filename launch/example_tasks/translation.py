"""Translation with an encoder-decoder Transformer; Multi30k, German to English.

A trained model lives in a work directory:

    WORKDIR/config.json        how it was trained
    WORKDIR/vocabulary.json    its subwords
    WORKDIR/checkpoint/        Orbax checkpoint of the parameters
    WORKDIR/corruptions.json   wrong pairs it was trained on, by id
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core import types
from launch.example_tasks import (
  corrupted_pairs,
  subwords,
  texts,
  transformer,
)
from launch.example_tasks.options import ExampleOptions
from pipeline import (
  ID_KEY,
  RawExample,
  Task,
)
from pipeline.storage import checked_files, files as storage

# See `texts.Size`; base and big as Vaswani et al., "Attention is all you need",
# 2017; mini is for two cores.
_SIZES = {
  'mini': (128, 2, 4, 4000, 32),
  'small': (256, 3, 8, 8000, 64),
  'base': (512, 6, 8, 32_000, 128),
  'big': (1024, 6, 16, 32_000, 128),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationConfig(texts.TextConfig):
  """All that determines a trained translator; languages share the subwords.

  Attributes:
    source: feature with the text to translate.
    target: feature with its translation.
    corrupt_pairs: fraction of the training pairs that are made wrong.
    data_seed: of which, and how.
  """

  source: str
  target: str
  corrupt_pairs: float
  data_seed: int = 0

  @property
  def model(self) -> transformer.EncoderDecoder:
    return transformer.EncoderDecoder(self.vocabulary_size, *self.network)

  def initialise(self) -> types.Params:
    tokens = jnp.zeros((1, self.num_tokens), jnp.int32)
    return self.model.init(jax.random.key(self.schedule.seed), tokens, tokens)


def output_losses(
  logits: Any, features: types.Features, reduction: str
) -> jax.Array:
  """[batch, tokens] parts of the cross-entropy of each sentence.

  They add up to its sum or mean over tokens.
  """
  target = features['target']
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
  return texts.weight_tokens(losses, target, reduction)


def make_config(options: ExampleOptions) -> TranslationConfig:
  """What `train-example seq2seq` trains.

  Raises:
    errors.InputError: The size is unknown, or labels are to be flipped.
  """
  chosen = texts.choose(options, _SIZES, num_epochs=15)
  source, target = _languages(chosen['dataset'])
  return TranslationConfig(
    **chosen,
    source=source,
    target=target,
    corrupt_pairs=options.corrupt_pairs,
    data_seed=options.data_seed,
  )


def _languages(dataset: str) -> tuple[str, str]:
  """Source and target features: `name/de-en` says them, as in TFDS's names."""
  pair = dataset.partition(':')[0].partition('/')[2].split('-')
  return (pair[0], pair[1]) if len(pair) == 2 else ('de', 'en')


def make_task(
  workdir: str, loss_reduction: str = 'sum', epochs: str = 'last'
) -> Task:
  """The task of the translator trained in `workdir`.

  Args:
    workdir: of `influence train-example seq2seq`.
    loss_reduction: 'sum' or 'mean' over the tokens of a sentence.
    epochs: 'last', 'all' for the sum over those that were kept, or one of
      them by its number.
  """
  config = load_config(workdir)
  corruptions = load_corruptions(workdir)
  vocabulary = subwords.Vocabulary.load(texts.vocabulary_path(workdir))
  model = config.model

  def outputs(params, features):
    return model.apply(params, features['source'], features['target'])

  def losses_of_outputs(logits, features):
    return output_losses(logits, features, loss_reduction)

  return texts.make_task(
    config,
    workdir,
    jax.eval_shape(config.initialise),
    epochs,
    name=f'{config.dataset}_translation',
    preprocess=lambda raw: preprocess(
      pair_of(raw, config, corruptions), config, vocabulary
    ),
    row_columns=lambda raw: columns(raw, config, corruptions),
    loss_reduction=loss_reduction,
    token_texts=lambda raw: vocabulary.token_texts(
      pair_of(raw, config, corruptions).target, config.num_tokens
    ),
    **texts.losses_by_token(outputs, losses_of_outputs),
  )


def preprocess(
  pair: corrupted_pairs.Pair,
  config: TranslationConfig,
  vocabulary: subwords.Vocabulary,
) -> dict[str, np.ndarray]:
  """Source and target as [num_tokens] int32."""
  return {
    name: vocabulary.row(text, config.num_tokens)
    for name, text in pair._asdict().items()
  }


def columns(
  raw: RawExample,
  config: TranslationConfig,
  corruptions: Mapping[str, corrupted_pairs.CorruptedPair],
) -> Mapping[str, Any]:
  """Both texts, to read beside the scores, and what was done to them."""
  found = corruptions.get(raw[ID_KEY])
  return {
    **pair_of(raw, config, corruptions)._asdict(),
    'corruption': found.kind if found else 'none',
  }


def pair_of(
  raw: RawExample,
  config: TranslationConfig,
  corruptions: Mapping[str, corrupted_pairs.CorruptedPair],
) -> corrupted_pairs.Pair:
  """The sentences that an example was trained with."""
  found = corruptions.get(raw[ID_KEY])
  if found:
    return corrupted_pairs.Pair(found.source, found.target)
  return corrupted_pairs.Pair(
    texts.text_of(raw, config.source), texts.text_of(raw, config.target)
  )


def corruptions_path(workdir: str) -> str:
  return storage.join(workdir, 'corruptions.json')


def load_corruptions(
  workdir: str,
) -> dict[str, corrupted_pairs.CorruptedPair]:
  """Wrong pairs that a translator was trained on, by id."""
  content = checked_files.read_json(corruptions_path(workdir))
  return {
    example_id: corrupted_pairs.CorruptedPair(*fields)
    for example_id, fields in content.items()
  }


def load_config(workdir: str) -> TranslationConfig:
  """How the translator in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  return texts.load_config(TranslationConfig, workdir)
