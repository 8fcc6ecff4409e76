"""The basis: leading eigenpairs of the Hessian, with the report on them.

Every gradient of the corpus and of a query is projected on this basis once;
influence is then an inner product of projections weighted by 1/eigenvalue.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import arnoldi, errors, types

# Pairs whose residual exceeds this part of their eigenvalue are no eigenpairs.
UNRELIABLE_RESIDUAL = 0.1


@dataclasses.dataclass(frozen=True)
class BasisReport:
  """How far a basis can be trusted.

  Attributes:
    residuals: |Hv - lambda v| / |lambda| of each kept pair.
    orthogonality_error: max |QQ^T - I| of the Krylov vectors.
    spectrum: every Ritz value of the iteration, largest first.
    negative_mass: sum of |negative Ritz values| / sum of |all Ritz values|.
    num_iterations: Arnoldi steps done, each one Hessian-vector product.
    broke_down: the Krylov space was exhausted before the steps asked for.
    sample_size: number of examples the Hessian was taken over.
    seconds: wall time of the iteration.
  """

  residuals: tuple[float, ...]
  orthogonality_error: float
  spectrum: tuple[float, ...]
  negative_mass: float
  num_iterations: int
  broke_down: bool
  sample_size: int
  seconds: float

  @property
  def num_unreliable(self) -> int:
    """How many kept pairs have a residual above `UNRELIABLE_RESIDUAL`."""
    return sum(value > UNRELIABLE_RESIDUAL for value in self.residuals)

  def to_json(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class Basis:
  """Eigenpairs by decreasing |eigenvalue|.

  Attributes:
    eigenvalues: [projection_dim] float64.
    eigenvectors: [projection_dim, *parameter shape] float32 by parameter path.
    report: its quality.
  """

  eigenvalues: np.ndarray
  eigenvectors: Mapping[str, types.Array]
  report: BasisReport

  def __post_init__(self):
    for path, vectors in self.eigenvectors.items():
      if len(vectors) != self.projection_dim:
        raise errors.InputError(
          f'eigenvectors of {path} are {len(vectors)}, but there are '
          f'{self.projection_dim} eigenvalues; fit the basis again'
        )

  @property
  def projection_dim(self) -> int:
    return len(self.eigenvalues)


def distill_basis(
  factorization: arnoldi.ArnoldiFactorization,
  selected: types.SelectedParameters,
  *,
  projection_dim: int,
  sample_size: int,
  seconds: float,
  keep_negative: bool = False,
) -> Basis:
  """The leading `projection_dim` eigenpairs of an Arnoldi factorization.

  Args:
    factorization: of the Hessian over `selected`, with parameters laid out in
      the order of their sorted paths.
    selected: the parameters by path, for their shapes.
    projection_dim: pairs wanted. Fewer come back when fewer exist: after a
      breakdown, or when too few eigenvalues are positive.
    sample_size: number of examples behind the Hessian, for the report.
    seconds: wall time of the iteration, for the report.
    keep_negative: also keep pairs with negative eigenvalues, to be weighted at
      query time by their absolute value or clipped.

  Returns:
    The basis, by decreasing |eigenvalue|.

  Raises:
    errors.InputError: No pair is left.
  """
  pairs = arnoldi.ritz_pairs(factorization)
  kept = _leading_pairs(pairs.eigenvalues, projection_dim, keep_negative)
  eigenvalues = pairs.eigenvalues[kept]
  if not len(kept):
    raise errors.InputError(
      'no eigenvalue of the Hessian sample is positive: the model is at no '
      'minimum of this loss; train it further or keep negative eigenvalues'
    )
  flat = jnp.matmul(
    jnp.asarray(pairs.coefficients[kept], jnp.float32),
    factorization.krylov_vectors[: factorization.num_steps],
    precision=jax.lax.Precision.HIGHEST,
  )  # [projection_dim, num_parameters]
  mass = np.abs(pairs.eigenvalues).sum()
  negative = pairs.eigenvalues[pairs.eigenvalues < 0]
  report = BasisReport(
    residuals=tuple(
      (pairs.residual_norms[kept] / np.abs(eigenvalues)).tolist()
    ),
    orthogonality_error=arnoldi.orthogonality_error(factorization),
    spectrum=tuple(pairs.eigenvalues.tolist()),
    negative_mass=float(np.abs(negative).sum() / mass) if mass else 0.0,
    num_iterations=factorization.num_steps,
    broke_down=factorization.broke_down,
    sample_size=sample_size,
    seconds=seconds,
  )
  return Basis(eigenvalues, _unflatten_rows(flat, selected), report)


def _leading_pairs(
  eigenvalues: np.ndarray, projection_dim: int, keep_negative: bool
) -> np.ndarray:
  """Indices of the pairs to keep, by decreasing |eigenvalue|."""
  magnitudes = np.abs(eigenvalues)
  # Below this an eigenvalue cannot be told from zero in float32 products, and
  # dividing by it would let rounding noise decide the influence.
  usable = magnitudes > arnoldi.BREAKDOWN_TOLERANCE * magnitudes.max()
  if not keep_negative:
    usable &= eigenvalues > 0
  order = np.argsort(-magnitudes, kind='stable')
  return order[usable[order]][:projection_dim]


def _unflatten_rows(
  rows: jax.Array, selected: types.SelectedParameters
) -> dict[str, np.ndarray]:
  """Cuts [n, num_parameters] into [n, *shape] by path."""
  eigenvectors = {}
  offset = 0
  for path in sorted(selected):
    shape = selected[path].shape
    size = int(np.prod(shape))
    part = np.asarray(rows[:, offset : offset + size])
    eigenvectors[path] = part.reshape(len(part), *shape)
    offset += size
  return eigenvectors
