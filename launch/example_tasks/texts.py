"""What examples of texts share: configuration, loss, files and task."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types
from launch.example_tasks import example, training, transformer
from launch.example_tasks.options import ExampleOptions
from pipeline import RawExample, SplitLoss, Task, TfdsCorpus, load_arrays
from pipeline.storage import files as storage

# Width, layers, heads, subwords and tokens of a text.
Size = tuple[int, int, int, int, int]
ConfigT = TypeVar('ConfigT', bound='TextConfig')


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextConfig:
  """What determines a trained model of texts.

  Attributes:
    dataset: TFDS name.
    data_dir: TFDS data_dir, absolute.
    train_split: that it is trained on.
    vocabulary_size: subwords.
    num_tokens: of a text at most, its end included.
    width: of the representations.
    num_layers: of each stack.
    num_heads: of each attention.
    dropout_rate: in training.
    schedule: of the training.
  """

  dataset: str
  data_dir: str
  train_split: str
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
  def network(self) -> tuple[int, int, int, float]:
    """What Transformers are made of, after the size of the vocabulary."""
    return self.width, self.num_layers, self.num_heads, self.dropout_rate


def choose(
  options: ExampleOptions, sizes: Mapping[str, Size], num_epochs: int
) -> dict[str, Any]:
  """The fields of `TextConfig` for what a user has chosen.

  Args:
    options: of the user.
    sizes: that there are, by name.
    num_epochs: unless chosen.

  Raises:
    errors.InputError: The size is unknown, or labels are to be flipped.
  """
  options.refuse('flip_labels')
  size = options.size or 'mini'
  if size not in sizes:
    raise errors.InputError(
      f'size is {size!r}, expected one of {", ".join(sizes)}'
    )
  width, num_layers, num_heads, vocabulary_size, num_tokens = sizes[size]
  return {
    'dataset': options.dataset or 'multi30k',
    'data_dir': options.data_dir,
    'train_split': options.train_split,
    'vocabulary_size': vocabulary_size,
    'num_tokens': options.num_tokens or num_tokens,
    'width': width,
    'num_layers': num_layers,
    'num_heads': num_heads,
    'dropout_rate': 0.1,
    'schedule': training.Schedule(
      num_epochs=options.num_epochs or num_epochs,
      batch_size=128,
      learning_rate=3e-3 if width < 256 else 1e-3,
      seed=options.seed,
    ),
  }


def load_config(config_class: type[ConfigT], workdir: str) -> ConfigT:
  """How the model in `workdir` was trained.

  Raises:
    errors.InputError: Nothing was trained there.
  """
  content = example.read_config(workdir)
  schedule = training.Schedule(**content.pop('schedule'))
  return config_class(**content, schedule=schedule)


def make_task(
  config: TextConfig, workdir: str, like: types.Params, epochs: str, **more: Any
) -> Task:
  """The task of a trained model.

  Args:
    config: of the training.
    workdir: where the parameters are.
    like: their shapes.
    epochs: 'last', 'all' for the sum over those that were kept, or one of
      them by its number.
    **more: fields of the task, among them those of `losses_by_token`.
  """
  task = Task(
    load_parameters=lambda: load_arrays(
      example.checkpoint_path(workdir), like=like
    ),
    corpus=config.corpus(config.train_split),
    **more,
  )
  return training.with_epochs(
    task,
    workdir,
    which=epochs,
    num_epochs=config.schedule.num_epochs,
    like=like,
  )


def losses_by_token(
  outputs: Callable[[types.Params, types.Features], jax.Array],
  output_losses: Callable[[jax.Array, types.Features], jax.Array],
) -> dict[str, Any]:
  """The fields of a task whose losses are sums over tokens.

  Args:
    outputs: (params, features) -> [batch, tokens, ...] of the model.
    output_losses: (outputs, features) -> [batch, tokens] losses.
  """
  split_loss = SplitLoss(
    outputs, lambda found, features: output_losses(found, features).sum(axis=1)
  )
  return {
    'split_loss': split_loss,
    'per_example_loss': split_loss.per_example_loss,
    'token_losses': lambda params, features: output_losses(
      outputs(params, features), features
    ),
  }


def weight_tokens(
  losses: jax.Array, tokens: jax.Array, reduction: str
) -> jax.Array:
  """[batch, tokens] losses that add up to the loss of each text.

  That is their sum or mean over what is no padding.

  Raises:
    errors.InputError: reduction is neither 'sum' nor 'mean'.
  """
  if reduction not in ('sum', 'mean'):
    raise errors.InputError(
      f'loss_reduction is {reduction!r}, expected sum or mean'
    )
  mask = tokens != transformer.PAD_ID
  if reduction == 'sum':
    return losses * mask
  return losses * mask / jnp.sum(mask, axis=1, keepdims=True)


def text_feature(dataset: str, data_dir: str) -> str:
  """The feature with the text: `text`, English, or the only one of text.

  Raises:
    errors.InputError: There is none.
  """
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


def text_of(raw: RawExample, feature: str) -> str:
  value = raw[feature]
  return value.decode() if isinstance(value, bytes) else str(value)


def vocabulary_path(workdir: str) -> str:
  return storage.join(workdir, 'vocabulary.json')
