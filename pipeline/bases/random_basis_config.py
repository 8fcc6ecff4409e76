"""What random basis is made; it takes no time to import."""

import dataclasses

from influence_core import choices, errors


@dataclasses.dataclass(frozen=True)
class RandomBasisConfig:
  """What random basis is made.

  Attributes:
    projection_dim: number of vectors.
    method: random for inner products of gradients, random_gram to weight them
      by the inverse Gram matrix, as TRAK.
    sample_size: examples of the Gram matrix, drawn at random.
    basis_dtype: that vectors are stored in.
    seed: of signs and sample.
  """

  projection_dim: int = 50
  method: choices.RandomMethod = 'random_gram'
  sample_size: int = 4096
  basis_dtype: choices.BasisDtype = 'float32'
  seed: int = 0

  def __post_init__(self):
    errors.check_at_least_one(
      projection_dim=self.projection_dim, sample_size=self.sample_size
    )
