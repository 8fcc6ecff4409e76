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

from influence_core import errors, types
from launch.example_tasks import example, subwords, training, transformer
from launch.example_tasks.translation import reduced, text_of, vocabulary_path
from pipeline import SplitLoss, Task, TfdsCorpus, load_arrays, save_arrays

# Width, layers, heads, subwords (0: bytes) and tokens of a text.
_SIZES = {
  'bytes-mini': (128, 2, 4, 0, 96),
  'mini': (128, 2, 4, 4000, 40),
  'small': (256, 4, 8, 8000, 128),
  'base': (768, 12, 12, 32_000, 512),
}


@dataclasses.dataclass(frozen=True)
class LanguageModelConfig:
  """All that determines a trained language model.

  Attributes:
    dataset: TFDS name of a dataset with texts.
    data_dir: TFDS data_dir, absolute.
    train_split: that it is trained on.
    feature: with the text.
    vocabulary_size: subwords; 0 for bytes.
    num_tokens: of a text at most, its end included.
    width: of the representations.
    num_layers: of the decoder.
    num_heads: of each attention.
    dropout_rate: in training.
    schedule: of the training.
  """

  dataset: str
  data_dir: str
  train_split: str
  feature: str
  vocabulary_size: int
  num_tokens: int
  width: int
  num_layers: int
  num_heads: int
  dropout_rate: float
  schedule: training.Schedule

  def corpus(self, split: str) -> TfdsCorpus:
    return TfdsCorpus(self.dataset, split, self.data_dir)

  @property
  def model(self) -> transformer.LanguageModel:
    return transformer.LanguageModel(
      self.vocabulary_size or subwords.Bytes.size,
      self.width,
      self.num_layers,
      self.num_heads,
      self.dropout_rate,
    )

  def initialise(self) -> types.Params:
    tokens = jnp.zeros((1, self.num_tokens), jnp.int32)
    return self.model.init(jax.random.key(self.schedule.seed), tokens)


def make_config(options: example.ExampleOptions) -> LanguageModelConfig:
  """What `train-example language_model` trains.

  Raises:
    errors.InputError: The size is unknown, labels are to be flipped, or the
      dataset has no text.
  """
  options.refuse('flip_labels')
  options.refuse('corrupt_pairs')
  size = options.size or 'mini'
  if size not in _SIZES:
    raise errors.InputError(
      f'size is {size!r}, expected one of {", ".join(_SIZES)}'
    )
  width, num_layers, num_heads, vocabulary_size, num_tokens = _SIZES[size]
  dataset = options.dataset or 'multi30k'
  return LanguageModelConfig(
    dataset=dataset,
    data_dir=options.data_dir,
    train_split=options.train_split,
    feature=_text_feature(dataset, options.data_dir),
    vocabulary_size=vocabulary_size,
    num_tokens=num_tokens,
    width=width,
    num_layers=num_layers,
    num_heads=num_heads,
    dropout_rate=0.1,
    schedule=training.Schedule(
      num_epochs=options.num_epochs or 5,
      batch_size=128,
      learning_rate=3e-3 if width < 256 else 1e-3,
      seed=options.seed,
    ),
  )


def _text_feature(dataset: str, data_dir: str) -> str:
  """The feature with the text: `text`, English, or the only one of text."""
  features = TfdsCorpus(dataset, 'train', data_dir).features
  texts = [
    name
    for name, feature in features.items()
    if feature.np_dtype == np.object_ and feature.shape == ()
  ]
  for name in ('text', 'en', *texts):
    if name in texts:
      return name
  raise errors.InputError(
    f'{dataset} has the features {", ".join(features)}, none of them a text'
  )


def load_config(workdir: str) -> LanguageModelConfig:
  """How the language model in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  content = example.read_config(workdir)
  schedule = training.Schedule(**content.pop('schedule'))
  return LanguageModelConfig(**content, schedule=schedule)


def make_task(
  workdir: str, loss_reduction: str = 'sum', epochs: str = 'last'
) -> Task:
  """The task of the language model trained in `workdir`.

  Args:
    workdir: of `influence train-example language_model`.
    loss_reduction: 'sum' or 'mean' over the tokens of a text.
    epochs: 'last', or 'all' for the sum over those that were kept.
  """
  config = load_config(workdir)
  vocabulary = load_vocabulary(config, workdir)
  model = config.model

  def outputs(params, features):
    return model.apply(params, features['tokens'])

  def loss_of_outputs(logits, features):
    return output_loss(logits, features, loss_reduction)

  like = jax.eval_shape(config.initialise)
  split_loss = SplitLoss(outputs, loss_of_outputs)
  task = Task(
    name=f'{config.dataset}_language_model',
    load_parameters=lambda: load_arrays(
      example.checkpoint_path(workdir), like=like
    ),
    per_example_loss=split_loss.per_example_loss,
    corpus=config.corpus(config.train_split),
    preprocess=lambda raw: {
      'tokens': vocabulary.row(text_of(raw, config.feature), config.num_tokens)
    },
    row_columns=lambda raw: {'text': text_of(raw, config.feature)},
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


def output_loss(
  logits: Any, features: types.Features, reduction: str
) -> jax.Array:
  """Cross-entropy of each text, [batch]: sum or mean over its tokens."""
  losses = optax.softmax_cross_entropy_with_integer_labels(
    logits, features['tokens']
  )
  return reduced(losses, features['tokens'], reduction)


def load_vocabulary(
  config: LanguageModelConfig, workdir: str
) -> subwords.Vocabulary | subwords.Bytes:
  if not config.vocabulary_size:
    return subwords.Bytes()
  return subwords.Vocabulary.load(vocabulary_path(workdir))


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
    vocabulary.save(vocabulary_path(workdir))

  def loss(params, batch, key):
    logits = config.model.apply(params, batch['tokens'], rngs={'dropout': key})
    return output_loss(logits, batch, 'mean')

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
  """`bits_per_byte` of the test split: its loss over the bytes of its texts."""
  params = load_arrays(
    example.checkpoint_path(workdir), like=jax.eval_shape(config.initialise)
  )
  test = _texts(config, 'test')
  rows = _rows(config, load_vocabulary(config, workdir), test)
  total = _total_loss(config, params, rows)
  num_bytes = sum(len(text.encode()) for text in test)
  return {'bits_per_byte': float(total / np.log(2) / num_bytes)}


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
    return output_loss(config.model.apply(params, tokens), features, 'sum')

  chunks = range(0, len(tokens), 100)
  return float(sum(losses(tokens[i : i + 100]).sum() for i in chunks))


def _texts(config: LanguageModelConfig, split: str) -> list[str]:
  return [
    text_of(raw, config.feature)
    for raw in example.read_split(config.corpus(split))
  ]


EXAMPLE = example.Example(make_config, load_config, train, measure)
