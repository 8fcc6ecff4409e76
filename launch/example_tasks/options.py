"""What can be chosen of an example; it takes no time to import."""

import dataclasses

from influence_core import errors


@dataclasses.dataclass(frozen=True)
class ExampleOptions:
  """What a user may choose of any example; by default what suits it.

  Attributes:
    data_dir: TFDS directory of the prepared dataset; digits_cnn makes its own.
    dataset: another TFDS dataset of the same kind; default: its own.
    train_split: TFDS split to train on, e.g. 'train[:6000]'.
    size: name of a model size: Ti/4, S/16, L/32, ... of vit; mini, small, base
      of texts; mini, base of digits_cnn.
    num_tokens: number of tokens that texts are cut to; default: that of the
      size.
    flip_labels: fraction of the training labels to make wrong.
    corrupt_pairs: fraction of the training pairs of sentences to make wrong.
    pretrained: Orbax checkpoint to start from; layers of other shapes start
      anew.
    num_epochs: number of passes over the training split; default: what suits
      the example.
    seed: random seed of initialisation and order.
    data_seed: random seed of wrong labels and pairs; models of other seeds are
      trained on the same data.
  """

  data_dir: str = ''
  dataset: str | None = None
  train_split: str = 'train'
  size: str | None = None
  num_tokens: int | None = None
  flip_labels: float = 0.0
  corrupt_pairs: float = 0.0
  pretrained: str | None = None
  num_epochs: int | None = None
  seed: int = 0
  data_seed: int = 0

  def __post_init__(self):
    for name in ('flip_labels', 'corrupt_pairs'):
      if not 0 <= getattr(self, name) < 1:
        raise errors.InputError(
          f'{name} is {getattr(self, name)}, expected a fraction in [0, 1)'
        )
    errors.check_at_least_one(
      num_epochs=self.num_epochs, num_tokens=self.num_tokens
    )

  def refuse(self, name: str) -> None:
    """Raises errors.InputError if an option that has no meaning is given."""
    if getattr(self, name):
      raise errors.InputError(
        f'{name} is {getattr(self, name)}, but this example has no '
        f'{name.partition("_")[2]}'
      )
