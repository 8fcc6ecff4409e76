"""Trains the classifier of `image_classifier` and stores it."""

from collections.abc import Mapping
import dataclasses
import functools

import jax
import numpy as np

from influence_core import errors, parameter_selection, types
from launch.example_tasks import example, image_classifier, training
from pipeline import ID_KEY, Task, load_arrays, save_arrays


@dataclasses.dataclass(frozen=True)
class Examples:
  """A split in memory.

  Attributes:
    ids: TFDS ids.
    images: [num_examples, height, width, channels] float32.
    labels: [num_examples] int32.
  """

  ids: list[str]
  images: np.ndarray
  labels: np.ndarray


def train(
  config: image_classifier.ClassifierConfig,
  workdir: str,
  progress: types.ProgressCallback = types.no_progress,
) -> None:
  """Trains with Adam on a cosine schedule and stores the result in `workdir`.

  `config.json` is written last: it marks the work directory as complete.
  """
  train_split = read_split(config, config.train_split)
  flips = image_classifier.flip_labels(
    train_split.ids,
    train_split.labels,
    num_classes=config.num_classes,
    fraction=config.flip_labels,
    seed=config.data_seed,
  )
  train_split = dataclasses.replace(
    train_split, labels=_with_flips(train_split, flips)
  )
  save = training.save_epochs(workdir, config.num_epochs)
  params = _fit(config, train_split, save=save, progress=progress)
  save_arrays(example.checkpoint_path(workdir), params)
  example.save_json(image_classifier.flips_path(workdir), flips)
  example.save_config(workdir, config)


def measure(
  config: image_classifier.ClassifierConfig, workdir: str
) -> dict[str, float]:
  """Accuracies: `train_accuracy` on the labels as given, `test_accuracy`."""
  params = load_arrays(
    example.checkpoint_path(workdir), like=jax.eval_shape(config.initialise)
  )
  flips = image_classifier.load_flips(workdir)
  train_split = read_split(config, config.train_split)
  train_split = dataclasses.replace(
    train_split, labels=_with_flips(train_split, flips)
  )
  test_split = read_split(config, 'test')
  return {
    'train_accuracy': _accuracy(config, params, train_split),
    'test_accuracy': _accuracy(config, params, test_split),
  }


def make_task(workdir: str, epochs: str = 'last') -> Task:
  """The task of the classifier trained in `workdir`, which can train again.

  Args:
    workdir: of `influence train-example`.
    epochs: 'last', 'all' for the sum over those that were kept, or one of
      them by its number.
  """
  config = image_classifier.load_config(workdir)
  flips = image_classifier.load_flips(workdir)

  @functools.cache
  def given() -> Examples:
    split = read_split(config, config.train_split)
    return dataclasses.replace(split, labels=_with_flips(split, flips))

  def retrain(ids: frozenset[str], seed: int) -> types.Params:
    split = given()
    rows = np.array([example_id in ids for example_id in split.ids])
    some = Examples(
      [x for x in split.ids if x in ids], split.images[rows], split.labels[rows]
    )
    return _fit(dataclasses.replace(config, seed=seed), some)

  task = image_classifier.make_task(workdir)
  like = jax.eval_shape(config.initialise)
  return training.with_epochs(
    dataclasses.replace(task, retrain=retrain),
    workdir,
    which=epochs,
    num_epochs=config.num_epochs,
    like=like,
  )


def _with_flips(split: Examples, flips: Mapping[str, int]) -> np.ndarray:
  pairs = zip(split.ids, split.labels, strict=True)
  return np.array([flips.get(x, label) for x, label in pairs], np.int32)


def read_split(
  config: image_classifier.ClassifierConfig, split: str
) -> Examples:
  """Reads and preprocesses a whole split, with true labels.

  Raises:
    errors.InputError: The dataset is not there, or is not made of images of
      the expected size.
  """
  ids, images, labels = [], [], []
  for raw in example.read_split(config.corpus(split)):
    features = image_classifier.preprocess(raw, config, {})
    ids.append(raw[ID_KEY])
    images.append(features['image'])
    labels.append(features['label'])
  expected = tuple(config.image_shape)
  if images[0].shape != expected:
    raise errors.InputError(
      f'images of {config.dataset} have shape {images[0].shape}, expected '
      f'{expected}; choose the example that fits the dataset'
    )
  return Examples(ids, np.stack(images), np.stack(labels))


def _start(config: image_classifier.ClassifierConfig) -> types.Params:
  """Initial parameters, those of a pretrained model where shapes agree.

  Raises:
    errors.InputError: The checkpoint has no parameter of this model.
  """
  params = config.initialise()
  if config.pretrained is None:
    return params
  stored = parameter_selection.all_parameters(load_arrays(config.pretrained))
  taken = []

  def take(path, leaf):
    name = parameter_selection.parameter_path(path)
    if name in stored and stored[name].shape == leaf.shape:
      taken.append(name)
      return stored[name]
    return leaf

  params = jax.tree_util.tree_map_with_path(take, params)
  if not taken:
    raise errors.InputError(
      f'the checkpoint at {config.pretrained} has no parameter of this model; '
      f'it has {", ".join(sorted(stored)[:3])}, ...'
    )
  return params


def _fit(
  config: image_classifier.ClassifierConfig,
  split: Examples,
  *,
  save: training.SaveCallback | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> types.Params:
  return training.fit(
    _start(config),
    {'image': split.images, 'label': split.labels},
    lambda params, batch, key: image_classifier.per_example_loss(
      config.model, params, batch
    ),
    training.Schedule(
      config.num_epochs, config.batch_size, config.learning_rate, config.seed
    ),
    save=save,
    progress=progress,
  )


def _accuracy(
  config: image_classifier.ClassifierConfig,
  params: types.Params,
  split: Examples,
) -> float:
  predicted = predict(config, params, split.images)
  return float(np.mean(predicted == split.labels))


def predict(
  config: image_classifier.ClassifierConfig,
  params: types.Params,
  images: np.ndarray,
) -> np.ndarray:
  """The class of each of [num_examples, height, width, 1] images."""
  apply = jax.jit(config.model.apply)
  chunks = range(0, len(images), 500)
  logits = [apply(params, images[start : start + 500]) for start in chunks]
  return np.concatenate([np.argmax(part, axis=1) for part in logits])
