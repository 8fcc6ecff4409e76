"""A small convolutional classifier: model, training and task.

`mnist_cnn` and `digits_cnn` are two sizes of it. A trained model lives in a
work directory:

    WORKDIR/config.json        how it was trained; a task needs nothing else
    WORKDIR/checkpoint/        Orbax checkpoint of the parameters
    WORKDIR/label_flips.json   wrong labels given to training examples, by id
"""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core import curvature_products, errors, types
from launch.example_tasks import example
from pipeline import checked_files, checkpoints, storage
from pipeline import corpus as corpus_lib
from pipeline import task as task_lib

NUM_CLASSES = 10


class ConvolutionalNetwork(nn.Module):
  """Convolutions with pooling, one hidden layer, logits.

  Attributes:
    channels: of each 3x3 convolution; the image is halved after each.
    hidden: width of the hidden layer.
  """

  channels: Sequence[int]
  hidden: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """[batch, height, width, 1] float32 -> [batch, classes] logits."""
    for channels in self.channels:
      images = nn.relu(nn.Conv(channels, (3, 3))(images))
      images = nn.avg_pool(images, (2, 2), (2, 2))
    flat = images.reshape(len(images), -1)
    return nn.Dense(NUM_CLASSES)(nn.relu(nn.Dense(self.hidden)(flat)))


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
  """All that determines a trained classifier.

  Attributes:
    dataset: TFDS name.
    data_dir: TFDS data_dir, absolute.
    channels: see `ConvolutionalNetwork`.
    hidden: see `ConvolutionalNetwork`.
    image_size: height and width in pixels.
    max_pixel: value of a white pixel.
    flip_labels: fraction of the training labels that are made wrong.
    num_epochs: passes over the training split.
    batch_size: examples of a training step.
    learning_rate: peak of the cosine schedule of Adam.
    seed: of initialisation, order and label flips.
  """

  dataset: str
  data_dir: str
  channels: tuple[int, ...]
  hidden: int
  image_size: int
  max_pixel: int
  flip_labels: float
  num_epochs: int
  batch_size: int
  learning_rate: float
  seed: int

  def __post_init__(self):
    if not 0 <= self.flip_labels < 1:
      raise errors.InputError(
        f'flip_labels is {self.flip_labels}, expected a fraction in [0, 1)'
      )
    if self.num_epochs < 1:
      raise errors.InputError(
        f'num_epochs is {self.num_epochs}, expected at least 1'
      )

  @property
  def model(self) -> ConvolutionalNetwork:
    return ConvolutionalNetwork(self.channels, self.hidden)

  def corpus(self, split: str) -> corpus_lib.TfdsCorpus:
    return corpus_lib.TfdsCorpus(self.dataset, split, self.data_dir)

  def initialise(self) -> types.Params:
    size = self.image_size
    return self.model.init(
      jax.random.key(self.seed), jnp.zeros((1, size, size, 1))
    )


def per_example_loss(
  model: nn.Module, params: types.Params, features: types.Features
) -> jax.Array:
  """Cross-entropy, [batch]."""
  return output_loss(model.apply(params, features['image']), features)


def output_loss(logits: Any, features: types.Features) -> jax.Array:
  """Cross-entropy of [batch, classes] logits, [batch]."""
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, features['label']
  )


def make_task(workdir: str) -> task_lib.Task:
  """The task of the classifier trained in `workdir`."""
  config = load_config(workdir)
  flips = checked_files.read_json(storage.join(workdir, 'label_flips.json'))
  model = config.model

  def row_columns(raw):
    label = int(raw['label'])
    given = flips.get(raw[corpus_lib.ID_KEY], label)
    return {'label': given, 'true_label': label}

  def loss(params, features):
    return per_example_loss(model, params, features)

  return task_lib.Task(
    name=f'{config.dataset}_classifier',
    load_parameters=lambda: checkpoints.load_arrays(
      storage.join(workdir, 'checkpoint'),
      like=jax.eval_shape(config.initialise),
    ),
    per_example_loss=loss,
    corpus=config.corpus('train'),
    preprocess=lambda raw: preprocess(raw, config, flips),
    row_columns=row_columns,
    split_loss=curvature_products.SplitLoss(
      lambda params, features: model.apply(params, features['image']),
      output_loss,
    ),
  )


def preprocess(
  raw: corpus_lib.RawExample,
  config: ClassifierConfig,
  flips: Mapping[str, int],
) -> dict[str, np.ndarray]:
  """Image in [0, 1] and the label it was trained with."""
  label = flips.get(raw[corpus_lib.ID_KEY], raw['label'])
  return {
    'image': np.asarray(raw['image'], np.float32) / config.max_pixel,
    'label': np.asarray(label, np.int32),
  }


def load_config(workdir: str) -> ClassifierConfig:
  """How the classifier in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  content = example.read_config(workdir)
  return ClassifierConfig(**{**content, 'channels': tuple(content['channels'])})


def flip_labels(
  ids: Sequence[str], labels: np.ndarray, *, fraction: float, seed: int
) -> dict[str, int]:
  """Wrong labels for a random fraction of the examples.

  Args:
    ids: of all examples.
    labels: [num_examples] integer, the true ones.
    fraction: how many to make wrong.
    seed: of the choice.

  Returns:
    The wrong label by id, for exactly round(fraction * num_examples) of them.
  """
  generator = np.random.default_rng(seed)
  count = round(fraction * len(ids))
  chosen = generator.choice(len(ids), count, replace=False)
  shifts = generator.integers(1, NUM_CLASSES, count)
  return {
    ids[index]: int((labels[index] + shift) % NUM_CLASSES)
    for index, shift in zip(chosen, shifts, strict=True)
  }
