"""What is known of a basis: how it was made, and how far it can be trusted.

There are three kinds, by the command that made the basis: of eigenpairs of an
iteration, of random vectors, of solved queries.
"""

from collections.abc import Mapping
import dataclasses

from influence_core import choices
from influence_core.eigenpairs import trust as basis_trust


@dataclasses.dataclass(frozen=True)
class BasisReport:
  """How far a basis can be trusted.

  Attributes:
    residuals: |Hv - lambda v| / |lambda| of each kept pair.
    orthogonality_error: max |QQ^T - I| of the Krylov vectors.
    spectrum: every Ritz value of the iteration, largest first.
    negative_mass: sum of |negative Ritz values| / sum of |all Ritz values|.
    num_iterations: Arnoldi steps done, each one operator product.
    broke_down: the Krylov space was exhausted before the steps asked for.
    sample_size: number of examples the curvature was taken over.
    seconds: wall time of the iteration and of the estimate of the trace.
    tolerance: largest residual of an eigenpair that can be relied on.
    trace: of the operator and what the basis captures; None if not estimated.
    second_sample: agreement with a basis of other examples; None if not asked.
    doubled_sample: agreement with a basis of both samples together.
    rejected: reason by id of the examples that were left out of the samples.
  """

  residuals: tuple[float, ...]
  orthogonality_error: float
  spectrum: tuple[float, ...]
  negative_mass: float
  num_iterations: int
  broke_down: bool
  sample_size: int
  seconds: float
  tolerance: float = choices.RELIABLE_RESIDUAL
  trace: basis_trust.TraceEstimate | None = None
  second_sample: basis_trust.SubspaceAgreement | None = None
  doubled_sample: basis_trust.SubspaceAgreement | None = None
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def num_products(self) -> int:
    """With the operator, in all; without those of other samples."""
    return self.num_iterations + (self.trace.num_probes if self.trace else 0)

  @property
  def num_unreliable(self) -> int:
    """How many kept pairs have a residual above the tolerance."""
    return sum(value > self.tolerance for value in self.residuals)

  @property
  def objections(self) -> list[str]:
    """Why the basis should not be used as it is; empty for a good one."""
    return basis_trust.objections(
      residuals=self.residuals,
      tolerance=self.tolerance,
      orthogonality_error=self.orthogonality_error,
      agreements={
        'a second sample': self.second_sample,
        'twice the sample': self.doubled_sample,
      },
    )


@dataclasses.dataclass(frozen=True)
class RandomReport:
  """How a random basis was made; there is no eigenpair to judge.

  Attributes:
    method: 'random' for inner products of gradients, 'random_gram' for those
      weighted by the inverse Gram matrix.
    sample_size: examples that the Gram matrix is the mean of; 0 for none.
    seconds: that it took.
    rejected: reason by id of the examples that were left out of the sample.
  """

  method: choices.RandomMethod
  sample_size: int
  seconds: float
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def objections(self) -> list[str]:
    return []


@dataclasses.dataclass(frozen=True)
class QueryReport:
  """How a basis of solved queries was made.

  Its vectors are (H + damping)^-1 g of single queries: the projection of an
  example on one of them is its influence on that query, and on no other.

  Attributes:
    method: 'gradient' for the queries' gradients themselves; else by what the
      inverse curvature was applied to them.
    query_ids: of the queries, one for each vector.
    residuals: |(H + damping) v - g| / |g| of each; empty where it is not known.
    num_products: with the curvature, for all queries together and the trace.
    sample_size: examples that the curvature is the mean of; 0 for none.
    seconds: that it took.
    rejected: reason by id of the examples that were left out of the sample.
    trace: of the curvature, where damping is relative to its mean; else None.
  """

  method: choices.QueryMethod
  query_ids: tuple[str, ...]
  residuals: tuple[float, ...]
  num_products: int
  sample_size: int
  seconds: float
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)
  trace: basis_trust.TraceEstimate | None = None

  @property
  def objections(self) -> list[str]:
    return []


Report = BasisReport | RandomReport | QueryReport
