"""Vision Transformers: sizes by name, images of any shape, fine-tuning."""

from typing import ClassVar

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from influence_core import parameter_selection
from launch.example_tasks import image_classifier, train_classifier, vit
from launch.example_tasks.options import ExampleOptions
from pipeline.tasks import checkpoints
from tests.kit import datasets

TASK = ['--task', 'launch.example_tasks.vit:make_task', '--task_arg']


class Stripes(datasets.MadeUpDataset):
  """Colour images with stripes that lie (0) or stand (1)."""

  FEATURES: ClassVar = {
    'image': tfds.features.Tensor(shape=(8, 8, 3), dtype=np.uint8),
    'label': tfds.features.ClassLabel(num_classes=2),
  }

  def _split_generators(self, dl_manager):
    return {
      'train': self._generate_examples(120, seed=0),
      'test': self._generate_examples(40, seed=1),
    }

  def _generate_examples(self, count, seed):
    generator = np.random.default_rng(seed)
    for key in range(count):
      image = np.repeat(generator.integers(256, size=(8, 1, 3)), 8, axis=1)
      label = key % 2
      image = image.swapaxes(0, 1) if label else image
      yield key, {'image': image.astype(np.uint8), 'label': label}


@pytest.fixture(name='data_dir', scope='module')
def fixture_data_dir(tmp_path_factory):
  path = tmp_path_factory.mktemp('stripes')
  datasets.prepare(Stripes, path)
  return path


@pytest.fixture(name='trained', scope='module')
def fixture_trained(data_dir, tmp_path_factory):
  path = tmp_path_factory.mktemp('vit')
  config = vit.make_config(
    ExampleOptions(
      data_dir=str(data_dir), dataset='stripes', size='XS/4', num_epochs=200
    )
  )
  train_classifier.train(config, str(path))
  return path, train_classifier.measure(config, str(path))


@pytest.mark.slow
def test_learns_and_is_projected(trained, influence, tmp_path):
  path, metrics = trained
  assert metrics['test_accuracy'] > 0.9
  task = [*TASK, f'workdir={path}']
  basis = ['--out', tmp_path / 'b', '--projection_dim', 4]
  more = ['--num_iterations', 8, '--sample_size', 64, '--json']
  assert influence('fit-basis', *task, *basis, *more).status == 0
  index = ['--basis', tmp_path / 'b', '--index', tmp_path / 'i', '--json']
  assert influence('project', *task, *index).json['num_examples'] == 120


@pytest.mark.slow
def test_fine_tuning_starts_from_a_checkpoint(
  trained, data_dir, tmp_path, influence
):
  path, _ = trained
  config = vit.make_config(
    ExampleOptions(
      data_dir=str(data_dir),
      dataset='stripes',
      pretrained=str(path / 'checkpoint'),
    )
  )
  stored = parameter_selection.all_parameters(
    checkpoints.load_arrays(str(path / 'checkpoint'))
  )
  started = parameter_selection.all_parameters(train_classifier._start(config))
  for name, values in stored.items():
    np.testing.assert_array_equal(started[name], values)
  checkpoints.save_arrays(str(tmp_path / 'other'), {'a': np.zeros(3)})
  line = influence(
    *('train-example', 'vit', '--dataset', 'stripes', '--data_dir', data_dir),
    *('--workdir', tmp_path / 'w', '--pretrained', tmp_path / 'other'),
  ).error_line
  assert 'has no parameter of this model; it has a' in line


@pytest.mark.parametrize(
  ('size', 'millions'), [('Ti/16', 5.7), ('S/16', 22.1), ('L/32', 306.5)]
)
def test_sizes_are_those_of_the_field(size, millions):
  """Numbers of parameters for 1,000 classes at 224 pixels, as published."""
  letter, patch = size.split('/')
  width, num_layers, num_heads = vit._SIZES[letter]
  config = image_classifier.ClassifierConfig(
    dataset='imagenet2012',
    data_dir='absent',
    train_split='train',
    architecture='vision_transformer',
    network={
      'patch_size': int(patch),
      'width': width,
      'num_layers': num_layers,
      'num_heads': num_heads,
    },
    image_shape=[224, 224, 3],
    num_classes=1000,
    max_pixel=255,
    pretrained=None,
    flip_labels=0.0,
    num_epochs=1,
    batch_size=1,
    learning_rate=1e-3,
    seed=0,
  )
  shapes = jax.tree.leaves(jax.eval_shape(config.initialise))
  count = sum(leaf.size for leaf in shapes) / 1e6
  assert count == pytest.approx(millions, rel=0.01)


def test_images_of_any_size_are_brought_to_one():
  image = np.zeros((10, 20, 1), np.uint8)
  image[:, 2:18] = 200  # The middle, which is kept.
  found = image_classifier.fit_image(image, (5, 5, 3))
  assert found.shape == (5, 5, 3)
  assert (found == 200).all()
  same = image_classifier.fit_image(image, (10, 20, 1))
  assert same is image


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--size', 'M/4'], "size is 'M/4', expected XS, Ti, S, B, L and a patch"),
    (['--size', 'Ti/3'], 'images are 8 x 8; choose a patch that divides both'),
    (['--dataset', 'absent'], 'no prepared dataset absent'),
  ],
)
def test_wrong_choices_are_told(influence, data_dir, tmp_path, flags, message):
  command = ['train-example', 'vit', '--workdir', tmp_path / 'w']
  command += ['--data_dir', data_dir, '--dataset', 'stripes', *flags]
  assert message in influence(*command).error_line
