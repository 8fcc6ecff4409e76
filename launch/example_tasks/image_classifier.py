"""Classifiers of images: models and task.

`mnist_cnn`, `digits_cnn` and `vit` are such. A trained model lives in a work
directory:

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
import PIL.Image

from influence_core import errors, types
from launch.example_tasks import example, transformer
from pipeline import (
  ID_KEY,
  RawExample,
  SplitLoss,
  Task,
  TfdsCorpus,
  load_arrays,
)
from pipeline.storage import checked_files, files as storage


class ConvolutionalNetwork(nn.Module):
  """Convolutions with pooling, one hidden layer, logits.

  Attributes:
    channels: of each 3x3 convolution; the image is halved after each.
    hidden: width of the hidden layer.
    num_classes: of the images.
  """

  channels: Sequence[int]
  hidden: int
  num_classes: int

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    """[batch, height, width, channels] -> [batch, num_classes] logits."""
    for channels in self.channels:
      images = nn.relu(nn.Conv(channels, (3, 3))(images))
      images = nn.avg_pool(images, (2, 2), (2, 2))
    flat = images.reshape(len(images), -1)
    return nn.Dense(self.num_classes)(nn.relu(nn.Dense(self.hidden)(flat)))


ARCHITECTURES: dict[str, Any] = {
  'convolutional': ConvolutionalNetwork,
  'vision_transformer': transformer.VisionTransformer,
}


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
  """All that determines a trained classifier.

  Attributes:
    dataset: TFDS name.
    data_dir: TFDS data_dir, absolute.
    train_split: that it is trained on.
    architecture: which of `ARCHITECTURES`.
    network: its fields, but for num_classes.
    image_shape: height, width and channels that images are brought to.
    num_classes: of the images.
    max_pixel: value of a white pixel.
    pretrained: checkpoint that training starts from, but for layers of other
      shapes; None for none.
    flip_labels: fraction of the training labels that are made wrong.
    num_epochs: passes over the training split.
    batch_size: examples of a training step.
    learning_rate: peak of the cosine schedule of Adam.
    seed: of initialisation and order.
    data_seed: of label flips.
  """

  dataset: str
  data_dir: str
  train_split: str
  architecture: str
  network: Mapping[str, Any]
  image_shape: Sequence[int]
  num_classes: int
  max_pixel: int
  pretrained: str | None
  flip_labels: float
  num_epochs: int
  batch_size: int
  learning_rate: float
  seed: int
  data_seed: int = 0

  def __post_init__(self):
    errors.check_at_least_one(num_epochs=self.num_epochs)

  @property
  def model(self) -> nn.Module:
    fields = {
      name: tuple(value) if isinstance(value, list) else value
      for name, value in self.network.items()
    }
    return ARCHITECTURES[self.architecture](
      **fields, num_classes=self.num_classes
    )

  def corpus(self, split: str) -> TfdsCorpus:
    return TfdsCorpus(self.dataset, split, self.data_dir)

  def initialise(self) -> types.Params:
    return self.model.init(
      jax.random.key(self.seed), jnp.zeros((1, *self.image_shape))
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


def make_task(workdir: str) -> Task:
  """The task of the classifier trained in `workdir`."""
  config = load_config(workdir)
  flips = load_flips(workdir)
  model = config.model

  def row_columns(raw):
    label = int(raw['label'])
    given = flips.get(raw[ID_KEY], label)
    return {'label': given, 'true_label': label}

  split_loss = SplitLoss(
    lambda params, features: model.apply(params, features['image']),
    output_loss,
  )
  return Task(
    name=f'{config.dataset}_classifier',
    load_parameters=lambda: load_arrays(
      example.checkpoint_path(workdir),
      like=jax.eval_shape(config.initialise),
    ),
    per_example_loss=split_loss.per_example_loss,
    corpus=config.corpus(config.train_split),
    preprocess=lambda raw: preprocess(raw, config, flips),
    row_columns=row_columns,
    split_loss=split_loss,
    predict=lambda params, features: {
      'predicted': split_loss.outputs(params, features).argmax(axis=1)
    },
    show=lambda raw: {'image': np.asarray(raw['image']) / config.max_pixel},
  )


def preprocess(
  raw: RawExample,
  config: ClassifierConfig,
  flips: Mapping[str, int],
) -> dict[str, np.ndarray]:
  """Image in [0, 1] and the label it was trained with."""
  label = flips.get(raw[ID_KEY], raw['label'])
  image = fit_image(np.asarray(raw['image']), config.image_shape)
  return {
    'image': image.astype(np.float32) / config.max_pixel,
    'label': np.asarray(label, np.int32),
  }


def fit_image(image: np.ndarray, shape: Sequence[int]) -> np.ndarray:
  """An image of any size as [height, width, channels] of its middle.

  Grey becomes three equal channels where those are wanted.
  """
  height, width, channels = shape
  if image.shape[:2] != (height, width):
    scale = max(height / image.shape[0], width / image.shape[1])
    size = [round(scale * side) for side in image.shape[1::-1]]
    resized = PIL.Image.fromarray(image.squeeze()).resize(
      size, PIL.Image.Resampling.BILINEAR
    )
    image = np.atleast_3d(np.asarray(resized))
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    image = image[top : top + height, left : left + width]
  if image.shape[2] == 1 and channels == 3:
    image = np.repeat(image, 3, axis=2)
  return image


def load_config(workdir: str) -> ClassifierConfig:
  """How the classifier in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  return ClassifierConfig(**example.read_config(workdir))


def flips_path(workdir: str) -> str:
  return storage.join(workdir, 'label_flips.json')


def load_flips(workdir: str) -> dict[str, int]:
  """Wrong labels that were given to training examples, by id."""
  return checked_files.read_json(flips_path(workdir))


def flip_labels(
  ids: Sequence[str],
  labels: np.ndarray,
  *,
  num_classes: int,
  fraction: float,
  seed: int,
) -> dict[str, int]:
  """Wrong labels for a random fraction of the examples.

  Args:
    ids: of all examples.
    labels: [num_examples] integer, the true ones.
    num_classes: that there are.
    fraction: how many to make wrong.
    seed: of the choice.

  Returns:
    The wrong label by id, for exactly round(fraction * num_examples) of them.
  """
  generator = np.random.default_rng(seed)
  count = round(fraction * len(ids))
  chosen = generator.choice(len(ids), count, replace=False)
  shifts = generator.integers(1, num_classes, count)
  return {
    ids[index]: int((labels[index] + shift) % num_classes)
    for index, shift in zip(chosen, shifts, strict=True)
  }
