"""What random basis is made; it takes no time to import."""

import dataclasses

from influence_core import choices, errors


@dataclasses.dataclass(frozen=True)
class RandomBasisConfig:
  """What random basis is made.

  Attributes:
    projection_dim: number of random vectors.
    method: random gives inner products of projected gradients; random_gram
      weights them by the inverse Gram matrix, as TRAK does.
    sample_size: number of examples, drawn at random, that the Gram matrix is
      averaged over.
    basis_dtype: dtype of stored vectors.
    seed: random seed of signs and sample.
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
