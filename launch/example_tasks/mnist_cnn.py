"""MNIST with a convolutional network of 0.8 million parameters."""

from launch.example_tasks import image_classifier
from pipeline import storage
from pipeline import task as task_lib


def make_task(workdir: str) -> task_lib.Task:
  """The network trained by `influence train-example mnist_cnn`."""
  return image_classifier.make_task(workdir)


def make_config(
  *, data_dir: str, flip_labels: float, num_epochs: int | None, seed: int
) -> image_classifier.ClassifierConfig:
  """What `train-example mnist_cnn` trains; two epochs unless told otherwise."""
  return image_classifier.ClassifierConfig(
    dataset='mnist',
    data_dir=storage.absolute(data_dir),
    channels=(32, 64),
    hidden=256,
    image_size=28,
    max_pixel=255,
    flip_labels=flip_labels,
    num_epochs=num_epochs or 2,
    batch_size=128,
    learning_rate=2e-3,
    seed=seed,
  )
