"""A decoder-only language model on the texts of any TFDS dataset.

By bytes, so that no vocabulary is needed, or by subwords of the corpus. The
loss of an example is that of its text, sum or mean over tokens.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core import types
from launch.example_tasks import (
  example,
  subwords,
  texts as texts_lib,
  training,
  transformer,
)
from launch.example_tasks.options import ExampleOptions
from pipeline import (
  RawExample,
  Task,
  load_arrays,
  save_arrays,
)

# See `texts.Size`; no subwords are bytes.
_SIZES = {
  'bytes-mini': (128, 2, 4, 0, 96),
  'mini': (128, 2, 4, 4000, 40),
  'small': (256, 4, 8, 8000, 128),
  'base': (768, 12, 12, 32_000, 512),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LanguageModelConfig(texts_lib.TextConfig):
  """All that determines a trained language model.

  Attributes:
    feature: with the text.
  """

  feature: str

  @property
  def model(self) -> transformer.LanguageModel:
    vocabulary_size = self.vocabulary_size or subwords.Bytes.size
    return transformer.LanguageModel(vocabulary_size, *self.network)

  def initialise(self) -> types.Params:
    tokens = jnp.zeros((1, self.num_tokens), jnp.int32)
    return self.model.init(jax.random.key(self.schedule.seed), tokens)


def make_config(options: ExampleOptions) -> LanguageModelConfig:
  """What `train-example language_model` trains.

  Raises:
    errors.InputError: The size is unknown, labels or pairs are to be made
      wrong, or the dataset has no text.
  """
  options.refuse('corrupt_pairs')
  chosen = texts_lib.choose(options, _SIZES, num_epochs=5)
  feature = texts_lib.text_feature(chosen['dataset'], options.data_dir)
  return LanguageModelConfig(**chosen, feature=feature)


def load_config(workdir: str) -> LanguageModelConfig:
  """How the language model in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  return texts_lib.load_config(LanguageModelConfig, workdir)


def make_task(
  workdir: str, loss_reduction: str = 'sum', epochs: str = 'last'
) -> Task:
  """The task of the language model trained in `workdir`.

  Args:
    workdir: of `influence train-example language_model`.
    loss_reduction: 'sum' or 'mean' over the tokens of a text.
    epochs: 'last', 'all' for the sum over those that were kept, or one of
      them by its number.
  """
  config = load_config(workdir)
  vocabulary = load_vocabulary(config, workdir)
  model = config.model

  def outputs(params, features):
    return model.apply(params, features['tokens'])

  def losses_of_outputs(logits, features):
    return output_losses(logits, features, loss_reduction)

  return texts_lib.make_task(
    config,
    workdir,
    jax.eval_shape(config.initialise),
    epochs,
    name=f'{config.dataset}_language_model',
    preprocess=lambda raw: {
      'tokens': vocabulary.row(_text_of(raw, config), config.num_tokens)
    },
    row_columns=lambda raw: {'text': _text_of(raw, config)},
    loss_reduction=loss_reduction,
    token_texts=lambda raw: vocabulary.token_texts(
      _text_of(raw, config), config.num_tokens
    ),
    **texts_lib.losses_by_token(outputs, losses_of_outputs),
  )


def _text_of(raw: RawExample, config: LanguageModelConfig) -> str:
  return texts_lib.text_of(raw, config.feature)


def output_losses(
  logits: Any, features: types.Features, reduction: str
) -> jax.Array:
  """[batch, tokens] parts of the cross-entropy of each text.

  They add up to its sum or mean over tokens.
  """
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, features['tokens']
  )
  return texts_lib.weight_tokens(losses, features['tokens'], reduction)


def load_vocabulary(
  config: LanguageModelConfig, workdir: str
) -> subwords.Vocabulary | subwords.Bytes:
  if not config.vocabulary_size:
    return subwords.Bytes()
  return subwords.Vocabulary.load(texts_lib.vocabulary_path(workdir))


def train(
  config: LanguageModelConfig,
  workdir: str,
  progress: types.ProgressCallback = types.no_progress,
) -> None:
  """Trains and stores the result in `workdir`; config.json comes last."""
  texts = _texts(config, config.train_split)
  vocabulary: subwords.Vocabulary | subwords.Bytes = subwords.Bytes()
  if config.vocabulary_size:
    vocabulary = subwords.Vocabulary.train(texts, config.vocabulary_size)
    vocabulary.save(texts_lib.vocabulary_path(workdir))

  def loss(params, batch, key):
    logits = config.model.apply(params, batch['tokens'], rngs={'dropout': key})
    return output_losses(logits, batch, 'mean').sum(axis=1)

  params = training.fit(
    config.initialise(),
    {'tokens': _rows(config, vocabulary, texts)},
    loss,
    config.schedule,
    save=training.save_epochs(workdir, config.schedule.num_epochs),
    progress=progress,
  )
  save_arrays(example.checkpoint_path(workdir), params)
  example.save_config(workdir, config)


def measure(config: LanguageModelConfig, workdir: str) -> dict[str, float]:
  """Of the test split: loss over the bytes of its texts, and how many are cut.

  Returns:
    `bits_per_byte`, and `cut_texts`, the fraction with more than `num_tokens`.
  """
  params = load_arrays(
    example.checkpoint_path(workdir), like=jax.eval_shape(config.initialise)
  )
  test = _texts(config, 'test')
  vocabulary = load_vocabulary(config, workdir)
  rows = _rows(config, vocabulary, test)
  total = _total_loss(config, params, rows)
  num_bytes = sum(len(text.encode()) for text in test)
  # Only what is too long ends at the last of one place more.
  longer = [vocabulary.row(text, config.num_tokens + 1)[-1] for text in test]
  return {
    'bits_per_byte': float(total / np.log(2) / num_bytes),
    'cut_texts': float(np.mean(np.equal(longer, subwords.END_ID))),
  }


def _rows(
  config: LanguageModelConfig,
  vocabulary: subwords.Vocabulary | subwords.Bytes,
  texts: Sequence[str],
) -> np.ndarray:
  """[num_texts, num_tokens] int32."""
  return np.stack([vocabulary.row(x, config.num_tokens) for x in texts])


def _total_loss(
  config: LanguageModelConfig, params: types.Params, tokens: np.ndarray
) -> float:
  @jax.jit
  def losses(tokens):
    features = {'tokens': tokens}
    logits = config.model.apply(params, tokens)
    return output_losses(logits, features, 'sum')

  chunks = range(0, len(tokens), 100)
  return float(sum(losses(tokens[i : i + 100]).sum() for i in chunks))


def _texts(config: LanguageModelConfig, split: str) -> list[str]:
  return [
    _text_of(raw, config) for raw in example.read_split(config.corpus(split))
  ]


EXAMPLE = example.Example(make_config, load_config, train, measure)
