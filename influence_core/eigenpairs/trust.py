"""How far a basis can be trusted: what costs further operator products.

References:
  Hutchinson, "A stochastic estimator of the trace of the influence matrix",
    Communications in Statistics 18, 1989.
  Björck and Golub, "Numerical methods for computing angles between linear
    subspaces", Mathematics of Computation 27, 1973.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses

import jax
import numpy as np

from influence_core.eigenpairs import arnoldi, krylov_vectors, ritz

# float32 keeps vectors orthogonal to about 1e-6, bfloat16 to 1e-4.
_RELIABLE_ORTHOGONALITY = 1e-3
# Part of a basis that must be found again from other examples: below, more of
# it is noise of the sample than property of the corpus.
_RELIABLE_AGREEMENT = 0.5


@dataclasses.dataclass(frozen=True)
class TraceEstimate:
  """The trace of the operator, by Hutchinson's estimator.

  Attributes:
    trace: sum of all eigenvalues.
    standard_error: of `trace`, from the spread over the probes.
    captured: part of the trace in the kept eigenvalues; 0 where none are kept.
    num_probes: operator products spent; 0 where it is no estimate.
    num_parameters: number of all eigenvalues; None in reports that were written
      before it was.
  """

  trace: float
  standard_error: float
  captured: float
  num_probes: int
  num_parameters: int | None = None

  @property
  def mean_curvature(self) -> float | None:
    """Mean of all eigenvalues; None where their number is not known."""
    return self.trace / self.num_parameters if self.num_parameters else None


@dataclasses.dataclass(frozen=True)
class SubspaceAgreement:
  """Principal angles between two subspaces of eigenvectors.

  Attributes:
    cosines: of the angles, largest first: 1 for directions in both, 0 for
      directions that the other does not have at all.
  """

  cosines: tuple[float, ...]

  @property
  def overlap(self) -> float:
    """Mean squared cosine: the part of one subspace that is in the other."""
    return float(np.mean(np.square(self.cosines)))


def estimate_trace(
  operator: arnoldi.Operator,
  probes: Iterable[jax.Array],
  *,
  inner_product: Callable[[jax.Array, jax.Array], float],
  num_parameters: int,
  kept: tuple[krylov_vectors.KrylovVectors, ritz.RitzPairs] | None = None,
) -> TraceEstimate:
  """Estimates the trace from random probes z, as E[z^T H z].

  Args:
    operator: the operator.
    probes: slices of vectors of random signs, at least two.
    inner_product: of two vectors given as slices.
    num_parameters: length of a vector.
    kept: Krylov vectors, and pairs that are taken out and added exactly, so
      that only what they leave is estimated; None for none.
  """
  known = float(kept[1].eigenvalues.sum()) if kept else 0.0
  samples = []
  for probe in probes:
    along = _along(probe, *kept) if kept else 0.0
    samples.append(inner_product(probe, operator(probe)) - along)
  trace = known + float(np.mean(samples))
  return TraceEstimate(
    trace=trace,
    standard_error=float(np.std(samples, ddof=1) / np.sqrt(len(samples))),
    captured=known / trace if trace else 0.0,
    num_probes=len(samples),
    num_parameters=num_parameters,
  )


def _along(
  probe: jax.Array,
  vectors: krylov_vectors.KrylovVectors,
  pairs: ritz.RitzPairs,
) -> float:
  """The part of z^T H z along some pairs."""
  overlaps = vectors.overlaps(probe)[: pairs.coefficients.shape[1]]
  return float(np.square(pairs.coefficients @ overlaps) @ pairs.eigenvalues)


def subspace_agreement(
  vectors: krylov_vectors.KrylovVectors,
  pairs: ritz.RitzPairs,
  other_vectors: krylov_vectors.KrylovVectors,
  other_pairs: ritz.RitzPairs,
) -> SubspaceAgreement:
  """Principal angles between the eigenvectors of two iterations."""
  gram = vectors.gram(other_vectors)
  rows, columns = (p.coefficients.shape[1] for p in (pairs, other_pairs))
  cross = (
    pairs.coefficients @ gram[:rows, :columns] @ other_pairs.coefficients.T
  )
  cosines = np.linalg.svd(cross, compute_uv=False)
  return SubspaceAgreement(tuple(np.minimum(cosines, 1).tolist()))


def objections(
  *,
  residuals: Sequence[float],
  tolerance: float,
  orthogonality_error: float,
  agreements: Mapping[str, SubspaceAgreement | None],
) -> list[str]:
  """Why a basis should not be used as it is, each with what helps."""
  found = []
  unreliable = sum(value > tolerance for value in residuals)
  if unreliable:
    found.append(
      f'{unreliable} of {len(residuals)} pairs have a residual above '
      f'{tolerance:.2g}: use more iterations or fewer pairs'
    )
  if orthogonality_error > _RELIABLE_ORTHOGONALITY:
    found.append(
      f'orthogonality error {orthogonality_error:.1e} is above '
      f'{_RELIABLE_ORTHOGONALITY:.0e}: keep vectors in float32'
    )
  for what, agreement in agreements.items():
    if agreement and agreement.overlap < _RELIABLE_AGREEMENT:
      found.append(
        f'only {agreement.overlap:.0%} of the subspace is found again with '
        f'{what}: use a larger sample or fewer pairs'
      )
  return found
