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

from influence_core import errors, types
from launch.example_tasks import (
  corrupted_pairs,
  example,
  subwords,
  training,
  transformer,
)
from pipeline import (
  ID_KEY,
  RawExample,
  SplitLoss,
  Task,
  TfdsCorpus,
  load_arrays,
)
from pipeline.storage import checked_files, files as storage

# Width, layers, heads, subwords and tokens of a text; base and big as Vaswani
# et al., "Attention is all you need", 2017; mini is for two cores.
_SIZES = {
  'mini': (128, 2, 4, 4000, 32),
  'small': (256, 3, 8, 8000, 64),
  'base': (512, 6, 8, 32_000, 128),
  'big': (1024, 6, 16, 32_000, 128),
}


@dataclasses.dataclass(frozen=True)
class TranslationConfig:
  """All that determines a trained translator.

  Attributes:
    dataset: TFDS name of a translation set.
    data_dir: TFDS data_dir, absolute.
    train_split: that it is trained on.
    source: feature with the text to translate.
    target: feature with its translation.
    vocabulary_size: subwords of both languages together.
    num_tokens: of a text at most, its end included.
    width: of the representations.
    num_layers: of encoder and decoder each.
    num_heads: of each attention.
    dropout_rate: in training.
    corrupt_pairs: fraction of the training pairs that are made wrong.
    schedule: of the training.
  """

  dataset: str
  data_dir: str
  train_split: str
  source: str
  target: str
  vocabulary_size: int
  num_tokens: int
  width: int
  num_layers: int
  num_heads: int
  dropout_rate: float
  corrupt_pairs: float
  schedule: training.Schedule

  def corpus(self, split: str) -> TfdsCorpus:
    return TfdsCorpus(self.dataset, split, self.data_dir)

  @property
  def model(self) -> transformer.EncoderDecoder:
    return transformer.EncoderDecoder(
      self.vocabulary_size,
      self.width,
      self.num_layers,
      self.num_heads,
      self.dropout_rate,
    )

  def initialise(self) -> types.Params:
    tokens = jnp.zeros((1, self.num_tokens), jnp.int32)
    return self.model.init(jax.random.key(self.schedule.seed), tokens, tokens)


def output_loss(
  logits: Any, features: types.Features, reduction: str
) -> jax.Array:
  """Cross-entropy of each sentence, [batch]: sum or mean over its tokens."""
  target = features['target']
  losses = optax.softmax_cross_entropy_with_integer_labels(logits, target)
  return reduced(losses, target, reduction)


def reduced(losses: jax.Array, tokens: jax.Array, reduction: str) -> jax.Array:
  """[batch, tokens] losses -> [batch] sums or means over what is no padding.

  Raises:
    errors.InputError: reduction is neither 'sum' nor 'mean'.
  """
  if reduction not in ('sum', 'mean'):
    raise errors.InputError(
      f'loss_reduction is {reduction!r}, expected sum or mean'
    )
  mask = tokens != transformer.PAD_ID
  total = jnp.sum(losses * mask, axis=1)
  return total if reduction == 'sum' else total / jnp.sum(mask, axis=1)


def make_config(options: example.ExampleOptions) -> TranslationConfig:
  """What `train-example seq2seq` trains.

  Raises:
    errors.InputError: The size is unknown, or labels are to be flipped.
  """
  options.refuse('flip_labels')
  size = options.size or 'mini'
  if size not in _SIZES:
    raise errors.InputError(
      f'size is {size!r}, expected one of {", ".join(_SIZES)}'
    )
  width, num_layers, num_heads, vocabulary_size, num_tokens = _SIZES[size]
  dataset = options.dataset or 'multi30k'
  source, target = _languages(dataset)
  return TranslationConfig(
    dataset=dataset,
    data_dir=options.data_dir,
    train_split=options.train_split,
    source=source,
    target=target,
    vocabulary_size=vocabulary_size,
    num_tokens=num_tokens,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    dropout_rate=0.1,
    corrupt_pairs=options.corrupt_pairs,
    schedule=training.Schedule(
      num_epochs=options.num_epochs or 15,
      batch_size=128,
      learning_rate=3e-3 if width < 256 else 1e-3,
      seed=options.seed,
    ),
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
    epochs: 'last', or 'all' for the sum over those that were kept.
  """
  config = load_config(workdir)
  corruptions = load_corruptions(workdir)
  vocabulary = subwords.Vocabulary.load(vocabulary_path(workdir))
  model = config.model

  def outputs(params, features):
    return model.apply(params, features['source'], features['target'])

  def loss_of_outputs(logits, features):
    return output_loss(logits, features, loss_reduction)

  like = jax.eval_shape(config.initialise)
  split_loss = SplitLoss(outputs, loss_of_outputs)
  task = Task(
    name=f'{config.dataset}_translation',
    load_parameters=lambda: load_arrays(
      example.checkpoint_path(workdir), like=like
    ),
    per_example_loss=split_loss.per_example_loss,
    corpus=config.corpus(config.train_split),
    preprocess=lambda raw: preprocess(
      pair_of(raw, config, corruptions), config, vocabulary
    ),
    row_columns=lambda raw: columns(raw, config, corruptions),
    loss_reduction=loss_reduction,
    split_loss=split_loss,
  )
  return training.with_epochs(
    task,
    workdir,
    which=epochs,
    num_epochs=config.schedule.num_epochs,
    like=like,
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
    text_of(raw, config.source), text_of(raw, config.target)
  )


def text_of(raw: RawExample, feature: str) -> str:
  value = raw[feature]
  return value.decode() if isinstance(value, bytes) else str(value)


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


def vocabulary_path(workdir: str) -> str:
  return storage.join(workdir, 'vocabulary.json')


def load_config(workdir: str) -> TranslationConfig:
  """How the translator in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  content = example.read_config(workdir)
  schedule = training.Schedule(**content.pop('schedule'))
  return TranslationConfig(**content, schedule=schedule)
