"""How a parameter is read as a stack of matrices."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from influence_core.projection import (
  packing as basis_packing,
  plan as projection_plan,
)


@dataclasses.dataclass(frozen=True)
class ParameterMatrices:
  """How a parameter is read as a stack of matrices.

  Attributes:
    weight: what the plan knows of it.
    lengths: of the scans that take slices of it.
  """

  weight: projection_plan.Weight
  lengths: tuple[int, ...]

  @property
  def is_factored(self) -> bool:
    """Whether its gradient need not be formed."""
    return isinstance(self.weight, projection_plan.FactoredWeight)

  @property
  def num_lookups(self) -> int:
    """At how many of its uses rows are looked up."""
    if isinstance(self.weight, projection_plan.FactoredWeight):
      return self.weight.num_lookups
    return 0

  @property
  def is_lookup(self) -> bool:
    """Whether rows are looked up and no more, so that no two go together."""
    weight = self.weight
    if isinstance(weight, projection_plan.FactoredWeight):
      return weight.num_lookups == len(weight.sites)
    return False

  @property
  def sizes(self) -> tuple[int, int, int]:
    """(matrices, rows, columns)."""
    batch, rows, columns = 1, 1, 1
    if isinstance(self.weight, projection_plan.FactoredWeight):
      batch, rows, columns = self.weight.layout.sizes()
    elif self.weight.shape:
      columns = self.weight.shape[-1]
      rows = math.prod(self.weight.shape[:-1])
    return math.prod(self.lengths) * batch, rows, columns

  def to_matrices(self, arrays: jax.Array) -> jax.Array:
    """[count, *shape] as [count, matrix, row, column]."""
    count = len(arrays)
    arranged = jnp.asarray(basis_packing.arrange(self.weight, arrays, jnp))
    stored_shape = arranged.shape[1 + len(self.lengths) :]
    slices = arranged.reshape(-1, count, *stored_shape)
    if isinstance(self.weight, projection_plan.FactoredWeight):
      slices = jax.vmap(self.weight.layout.as_matrices)(slices)
    matrices, rows, columns = self.sizes
    split = slices.reshape(-1, count, matrices // len(slices), rows, columns)
    return split.swapaxes(0, 1).reshape(count, matrices, rows, columns)

  def from_matrices(
    self, matrices: jax.Array, shape: tuple[int, ...]
  ) -> jax.Array:
    """The inverse, which is the transpose: entries only change places.

    Args:
      matrices: [count, matrix, row, column].
      shape: of the parameter.
    """
    like = jax.ShapeDtypeStruct((len(matrices), *shape), matrices.dtype)
    [arrays] = jax.linear_transpose(self.to_matrices, like)(matrices)
    return arrays
