"""MNIST with a convolutional network of 0.8 million parameters."""

from launch.example_tasks import example, image_classifier, train_classifier
from launch.example_tasks.options import ExampleOptions
from pipeline import Task


def make_task(workdir: str, epochs: str = 'last') -> Task:
  """The network trained by `influence train-example mnist_cnn`."""
  return train_classifier.make_task(workdir, epochs)


def make_config(
  options: ExampleOptions,
) -> image_classifier.ClassifierConfig:
  """What `train-example mnist_cnn` trains; two epochs unless told otherwise."""
  options.refuse('corrupt_pairs')
  options.refuse('num_tokens')
  return image_classifier.ClassifierConfig(
    dataset='mnist',
    data_dir=options.data_dir,
    train_split=options.train_split,
    architecture='convolutional',
    network={'channels': [32, 64], 'hidden': 256},
    image_shape=[28, 28, 1],
    num_classes=10,
    max_pixel=255,
    pretrained=options.pretrained,
    flip_labels=options.flip_labels,
    num_epochs=options.num_epochs or 2,
    batch_size=128,
    learning_rate=2e-3,
    seed=options.seed,
    data_seed=options.data_seed,
  )


EXAMPLE = example.Example(
  make_config,
  image_classifier.load_config,
  train_classifier.train,
  train_classifier.measure,
)
