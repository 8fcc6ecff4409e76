"""Vision Transformers of any size by name, for any TFDS dataset of images.

Sizes are those of the field: Ti/16, S/32, B/16, L/32 and so on, the letter for
width, layers and heads, the number for the patch in pixels. Small images, as of
MNIST and CIFAR, take patches of 4. Images of different sizes, as of ImageNet,
are brought to 224 pixels.
"""

import re

from influence_core import errors
from launch.example_tasks import example, image_classifier, train_classifier
from launch.example_tasks.options import ExampleOptions
from pipeline import Task, TfdsCorpus

# Width, layers and heads (Steiner et al., "How to train your ViT?", 2022); XS
# is for two cores.
_SIZES = {
  'XS': (64, 4, 4),
  'Ti': (192, 12, 3),
  'S': (384, 12, 6),
  'B': (768, 12, 12),
  'L': (1024, 24, 16),
}
_SIZE = re.compile(r'(\w+)/(\d+)')
# Of images that have no size of their own in common.
_IMAGE_SIZE = 224


def make_task(workdir: str, epochs: str = 'last') -> Task:
  """The Transformer trained by `influence train-example vit`."""
  return train_classifier.make_task(workdir, epochs)


def make_config(
  options: ExampleOptions,
) -> image_classifier.ClassifierConfig:
  """What `train-example vit` trains: XS/4 on MNIST unless told otherwise.

  Raises:
    errors.InputError: The size is unknown or does not fit the images, or the
      dataset has no images with labels.
  """
  dataset = options.dataset or 'mnist'
  image_shape, num_classes = _shapes(dataset, options.data_dir)
  size = options.size or 'XS/4'
  match = _SIZE.fullmatch(size)
  if match is None or match[1] not in _SIZES:
    raise errors.InputError(
      f'size is {size!r}, expected {", ".join(_SIZES)} and a patch, such as '
      'Ti/4 or L/32'
    )
  patch_size = int(match[2])
  if not patch_size or any(side % patch_size for side in image_shape[:2]):
    raise errors.InputError(
      f'size is {size!r}, but images are {image_shape[0]} x {image_shape[1]}; '
      'choose a patch that divides both'
    )
  width, num_layers, num_heads = _SIZES[match[1]]
  options.refuse('corrupt_pairs')
  options.refuse('num_tokens')
  return image_classifier.ClassifierConfig(
    dataset=dataset,
    data_dir=options.data_dir,
    train_split=options.train_split,
    architecture='vision_transformer',
    network={
      'patch_size': patch_size,
      'width': width,
      'num_layers': num_layers,
      'num_heads': num_heads,
    },
    image_shape=image_shape,
    num_classes=num_classes,
    max_pixel=255,
    pretrained=options.pretrained,
    flip_labels=options.flip_labels,
    num_epochs=options.num_epochs or 5,
    batch_size=128,
    # Fine-tuning keeps what was learnt.
    learning_rate=1e-4 if options.pretrained else 1e-3,
    seed=options.seed,
    data_seed=options.data_seed,
  )


def _shapes(dataset: str, data_dir: str) -> tuple[list[int], int]:
  """[height, width, channels] of the images, and how many classes there are."""
  features = TfdsCorpus(dataset, 'train', data_dir).features
  if not {'image', 'label'} <= features.keys():
    raise errors.InputError(
      f'{dataset} has the features {", ".join(features)}; a classifier needs '
      'image and label'
    )
  shape = features['image'].shape
  num_classes = features['label'].num_classes
  if None in shape:
    return [_IMAGE_SIZE, _IMAGE_SIZE, 3], num_classes
  return list(shape), num_classes


EXAMPLE = example.Example(
  make_config,
  image_classifier.load_config,
  train_classifier.train,
  train_classifier.measure,
)
