"""The 1,797 handwritten digits that scikit-learn ships: no download needed."""

import contextlib
import io

import numpy as np
from sklearn import datasets
import tensorflow_datasets as tfds

from influence_core import errors
from launch.example_tasks import example, image_classifier, train_classifier
from launch.example_tasks.options import ExampleOptions
from pipeline import Task

_NUM_TRAIN = 1497
_NUM_FILES = 3
# Channels of the convolutions and width of the hidden layer.
_SIZES = {'mini': ([8, 16], 32), 'base': ([16, 32], 128)}


def make_task(workdir: str, epochs: str = 'last') -> Task:
  """The network trained by `influence train-example digits_cnn`."""
  return train_classifier.make_task(workdir, epochs)


def make_config(
  options: ExampleOptions,
) -> image_classifier.ClassifierConfig:
  """What `train-example digits_cnn` trains: until it has memorised them.

  Raises:
    errors.InputError: The size is unknown.
  """
  options.refuse('corrupt_pairs')
  options.refuse('num_tokens')
  size = options.size or 'base'
  if size not in _SIZES:
    raise errors.InputError(
      f'size is {size!r}, expected one of {", ".join(_SIZES)}'
    )
  channels, hidden = _SIZES[size]
  return image_classifier.ClassifierConfig(
    dataset='digits',
    data_dir=options.data_dir,
    train_split=options.train_split,
    architecture='convolutional',
    network={'channels': channels, 'hidden': hidden},
    image_shape=[8, 8, 1],
    num_classes=10,
    max_pixel=16,
    pretrained=options.pretrained,
    flip_labels=options.flip_labels,
    num_epochs=options.num_epochs or 200,
    batch_size=64,
    learning_rate=5e-3,
    seed=options.seed,
    data_seed=options.data_seed,
  )


class Digits(tfds.core.GeneratorBasedBuilder):
  """The digits as a TFDS dataset, in a seeded random order."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description='Optical recognition of handwritten digits, 8x8 pixels.',
      homepage='https://archive.ics.uci.edu/dataset/80',
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          # Writing the Image feature would need TensorFlow; Tensor does not.
          'image': tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
          'label': tfds.features.ClassLabel(num_classes=10),
        }
      ),
    )

  def _split_generators(self, dl_manager):
    images, _ = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return {
      'train': self._generate_examples(order[:_NUM_TRAIN]),
      'test': self._generate_examples(order[_NUM_TRAIN:]),
    }

  def _generate_examples(self, rows: np.ndarray):
    images, labels = datasets.load_digits(return_X_y=True)
    for key, row in enumerate(rows):
      image = images[row].reshape(8, 8, 1).astype(np.uint8)
      yield key, {'image': image, 'label': int(labels[row])}


def prepare(data_dir: str) -> None:
  """Writes the digits as ArrayRecord, if they are not there yet.

  Raises:
    errors.InputError: They cannot be written.
  """
  tfds.disable_progress_bar()
  builder = Digits(data_dir=data_dir, file_format='array_record')
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS announces itself.
      builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=_NUM_FILES)
      )
  except (OSError, RuntimeError) as error:  # A full disk is either of them.
    raise errors.InputError(
      f'cannot write the digits to {data_dir} ({error}); correct that and run '
      'the same command again'
    ) from error


EXAMPLE = example.Example(
  make_config,
  image_classifier.load_config,
  train_classifier.train,
  train_classifier.measure,
  prepare,
)
