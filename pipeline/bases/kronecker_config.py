"""What subspaces of layers are fitted; it takes no time to import."""

import dataclasses
from typing import Literal

from influence_core import choices, errors

Curvature = Literal['gauss_newton', 'empirical_fisher']
Inside = Literal['second_moment', 'hessian']


@dataclasses.dataclass(frozen=True)
class KroneckerConfig:
  """What subspaces are fitted.

  Attributes:
    coordinates_per_layer: number of coordinates of a layer's gradient that are
      kept, at most; with kronecker.
    tables: what of tables that rows are looked up in, such as embeddings, has
      coordinates: the sum over their rows, or nothing, with kronecker.
    directions: of rows and columns that coordinates are along, with kronecker:
      the leading ones of the curvature, which predict retraining best, or
      random ones of whitened gradients, which find best what a single fact was
      learned from.
    num_draws: number of random gradients of an example that its curvature is
      taken from, with kronecker; default: all of them where outputs are few,
      else 4.
    sample_size: number of examples, drawn at random, that the curvature is
      averaged over.
    curvature: whose second moments are taken; None for gauss_newton where the
      task has a split_loss, else empirical_fisher.
    inside: matrix inside the subspaces, with kronecker: these second moments,
      or the Hessian of the loss, by a product with each coordinate.
    shrinkage: share of its own diagonal that the curvature inside is made of,
      from 0, as it was found, to 1, as in EK-FAC, with kronecker.
    basis_dtype: dtype of stored directions.
    seed: random seed of sample and draws.
  """

  coordinates_per_layer: int = 256
  tables: choices.Tables = 'left_out'
  directions: choices.Directions = 'leading'
  num_draws: int | None = None
  sample_size: int = 4096
  curvature: Curvature | None = None
  inside: Inside = 'second_moment'
  shrinkage: float = 0.4
  basis_dtype: choices.BasisDtype = 'float32'
  seed: int = 0

  def __post_init__(self):
    errors.check_at_least_one(
      coordinates_per_layer=self.coordinates_per_layer,
      num_draws=self.num_draws,
      sample_size=self.sample_size,
    )
    if not 0 <= self.shrinkage <= 1:
      raise errors.InputError(
        f'shrinkage is {self.shrinkage}, expected a number from 0 to 1'
      )

  def curvature_of(self, *, has_split_loss: bool) -> Curvature:
    """Whose second moments are taken for a task."""
    if self.curvature:
      return self.curvature
    return 'gauss_newton' if has_split_loss else 'empirical_fisher'
