"""What evaluations are made of; it takes no time to import."""

import dataclasses
from typing import Literal

from influence_core import errors

# See `baselines`.
Baseline = Literal['loss', 'gradient_norm', 'embedding', 'bm25']


@dataclasses.dataclass(frozen=True)
class Design:
  """Which random parts of the corpus are trained on.

  Attributes:
    num_subsets: number of random parts of the corpus to train on.
    fraction: size of each part, as a fraction of the corpus.
    seed: random seed of the parts, and of intervals.
  """

  num_subsets: int = 50
  fraction: float = 0.5
  seed: int = 0

  def __post_init__(self):
    if self.num_subsets < 2:
      raise errors.InputError(
        f'num_subsets is {self.num_subsets}, expected at least 2'
      )
    if not 0 < self.fraction < 1:
      raise errors.InputError(
        f'fraction is {self.fraction}, expected more than 0 and less than 1'
      )


@dataclasses.dataclass(frozen=True)
class Retraining:
  """How each part is trained on.

  Attributes:
    num_repeats: number of trainings on each part, with other seeds, whose
      losses are averaged; evaluate lds compares them, for the noise ceiling,
      where there are at least 2.
    num_workers: number of trainings at a time.
  """

  num_repeats: int = 1
  num_workers: int = 2

  def __post_init__(self):
    errors.check_at_least_one(
      num_repeats=self.num_repeats, num_workers=self.num_workers
    )
