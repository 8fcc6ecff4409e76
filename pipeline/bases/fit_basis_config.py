"""What basis is fitted, and with what."""

import dataclasses
from typing import Literal

from influence_core import choices, errors
from pipeline.index import choices as index_choices

KrylovPlacement = Literal['auto', 'device', 'host', 'disk']

# What may differ from the fit whose Krylov vectors are gone on from. Vectors do
# not depend on it; which of them a restart has kept does, but it can be gone on
# from any.
CHANGEABLE = frozenset(
  {
    'projection_dim',
    'num_iterations',
    'tolerance',
    'max_vectors',
    'keep_negative',
    'num_trace_probes',
    'check_sample',
  }
)

# Iterations after which a fit until convergence gives up, for each pair.
_MAX_ITERATIONS_PER_PAIR = 20


@dataclasses.dataclass(frozen=True)
class FitBasisConfig:
  """What basis is fitted.

  Attributes:
    projection_dim: number of eigenpairs wanted.
    num_iterations: number of Arnoldi steps, at least projection_dim; with about
      twice as many the last pairs converge. auto (None in Python) goes on until
      the residuals of all wanted pairs are at most tolerance. With more of
      them, or auto, a basis that ended in NO-GO goes on from its vectors.
    tolerance: largest residual |Hv - lambda v| / |lambda| of a pair that counts
      as reliable.
    max_vectors: largest number of Krylov vectors kept at a time, by thick
      restarts; default: all, or a few times projection_dim if iterations are
      auto.
    sample_size: number of examples, drawn at random, that the curvature is
      averaged over.
    curvature: matrix whose eigenpairs are fitted; gauss_newton needs a task
      with split_loss, and is what kronecker takes where there is one.
    keep_negative: also keep pairs with negative eigenvalues.
    krylov_dtype: dtype of stored Krylov vectors; bfloat16 halves memory and
      disk.
    basis_dtype: dtype of stored eigenvectors.
    num_trace_probes: number of operator products spent on estimating the trace,
      which relative damping takes its mean curvature from; 0 for no estimate.
    check_sample: also fit bases on a second sample and on both together, to
      measure how far the basis describes the corpus; costs four times as much.
    seed: random seed of the sample and of the initial vector.
  """

  projection_dim: int = 50
  num_iterations: int | None = 100
  tolerance: float = choices.RELIABLE_RESIDUAL
  max_vectors: int | None = None
  sample_size: int = 4096
  curvature: choices.Curvature = 'hessian'
  keep_negative: bool = False
  krylov_dtype: choices.BasisDtype = 'float32'
  basis_dtype: choices.BasisDtype = 'float32'
  num_trace_probes: int = 8
  check_sample: bool = False
  seed: int = 0

  def __post_init__(self):
    errors.check_at_least_one(
      projection_dim=self.projection_dim,
      num_iterations=self.num_iterations,
      sample_size=self.sample_size,
    )
    if self.num_trace_probes < 0 or self.num_trace_probes == 1:
      raise errors.InputError(
        f'num_trace_probes is {self.num_trace_probes}, expected 0 or at least 2'
      )
    if not self.tolerance > 0:
      raise errors.InputError(
        f'tolerance is {self.tolerance}, expected a positive number'
      )
    if (self.num_iterations or self.projection_dim) < self.projection_dim:
      raise errors.InputError(
        f'num_iterations is {self.num_iterations}, expected at least '
        f'projection_dim ({self.projection_dim}); about twice as many is '
        'usual, and there are no more pairs than parameters'
      )
    if self.max_vectors is not None and (
      self.max_vectors < self.projection_dim + 3
    ):
      raise errors.InputError(
        f'max_vectors is {self.max_vectors}, expected at least projection_dim '
        f'+ 3 ({self.projection_dim + 3})'
      )

  def within(self, num_parameters: int) -> 'FitBasisConfig':
    """With no more pairs than so many parameters have."""
    dim = min(self.projection_dim, num_parameters)
    return dataclasses.replace(self, projection_dim=dim)

  @property
  def max_products(self) -> int:
    """Operator products of an iteration at most."""
    return self.num_iterations or _MAX_ITERATIONS_PER_PAIR * self.projection_dim

  @property
  def max_steps(self) -> int:
    """Krylov vectors of an iteration at most, but for the last."""
    automatic = max(2 * self.projection_dim, self.projection_dim + 30)
    limit = self.max_vectors and self.max_vectors - 1
    if self.num_iterations is None:
      limit = limit or automatic
    return min(limit or self.max_products, self.max_products)


@dataclasses.dataclass(frozen=True)
class Resources:
  """What a job may use; results do not depend on it, but for rounding.

  Attributes:
    microbatch_size: number of examples differentiated at a time on each device;
      default: as many as are useful and fit.
    memory_budget_bytes: memory to use on each device, such as 12G; default:
      most of it.
    placement: where Krylov vectors live; auto is the first place where they
      fit.
    parameter_placement: parameters replicated on every device, or sharded over
      the devices for models that do not fit on one.
    work_dir: directory for durable Krylov vectors, on a local disk if they live
      there; they stay while the basis is NO-GO; default: inside the directory
      of the basis.
    max_rejected_fraction: fraction of the sampled examples that may be unusable
      before the job fails.
  """

  microbatch_size: int | None = None
  memory_budget_bytes: int | None = None
  placement: KrylovPlacement = 'auto'
  parameter_placement: choices.ParameterPlacement = 'replicated'
  work_dir: str | None = None
  max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION

  def __post_init__(self):
    errors.check_at_least_one(microbatch_size=self.microbatch_size)
    index_choices.check_rejected_fraction(self.max_rejected_fraction)
