"""A Vision Transformer on JPEG files, from a file to an index."""

import numpy as np
import optax

from pipeline import ImageFolderCorpus, SplitLoss, Task
from tests.benchmarks import projection_models

_SIDE = 224


def make_task(path: str, width: int = 384, num_layers: int = 12) -> Task:
  """Patches of 16 pixels; random parameters, which take as long as others.

  Args:
    path: of JPEGs, see `input_tasks.write_photographs`.
    width: of the representations; 384 and 12 layers are ViT-S/16.
    num_layers: of the model.
  """
  model = projection_models.VisionTransformer(
    patch_size=16, width=width, num_layers=num_layers, num_heads=6
  )
  shape = np.zeros((1, _SIDE, _SIDE, 3), np.float32)

  def outputs(params, features):
    return model.apply(params, features['image'])

  def output_loss(logits, features):
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, features['label']
    )

  split = SplitLoss(outputs, output_loss)
  return Task(
    name='vit',
    load_parameters=lambda: projection_models.draw_module_params(model, shape),
    per_example_loss=split.per_example_loss,
    corpus=ImageFolderCorpus(path),
    preprocess=lambda raw: {
      'image': np.asarray(raw['image'], np.float32) / 255,
      'label': np.int32(raw['label']),
    },
    split_loss=split,
  )
