"""What basis of solved queries is made."""

import dataclasses
import math

from influence_core import choices, damping as damping_lib, errors


@dataclasses.dataclass(frozen=True)
class QueryBasisConfig:
  """What basis is made.

  Attributes:
    query_split: TFDS split of the queries, e.g. 'test[:50]'.
    method: approximation of the inverse curvature: none (gradient), conjugate
      gradients, LiSSA, the explicit matrix, EK-FAC.
    curvature: matrix that is inverted; gauss_newton needs a task with
      split_loss.
    damping: value added to every eigenvalue; or, as in 0.1x, that times the
      mean curvature, which is that of each parameter, or layer of it in a scan,
      for ekfac, and else that of all parameters, which takes cg and lissa some
      more products. Default: none, and 0.1x for ekfac.
    num_products: largest number of curvature products for a query, with cg and
      lissa.
    tolerance: relative residual at which cg stops.
    scale: divisor of the curvature, with lissa; default: estimated.
    microbatch_size: number of examples in a product of lissa.
    num_draws: number of random gradients of an example that its curvature is
      taken from, with ekfac; default: all of them where outputs are few, else
      4.
    sample_size: number of examples, drawn at random, that the curvature is
      averaged over.
    basis_dtype: dtype of stored vectors.
    seed: random seed of the sample and all other choices.
  """

  query_split: str
  method: choices.QueryMethod = 'cg'
  curvature: choices.Curvature = 'gauss_newton'
  damping: float | str | None = None
  num_products: int = 100
  tolerance: float = 1e-3
  scale: float | None = None
  microbatch_size: int = 64
  num_draws: int | None = None
  sample_size: int = 4096
  basis_dtype: choices.BasisDtype = 'float32'
  seed: int = 0

  def __post_init__(self):
    errors.check_at_least_one(
      num_products=self.num_products,
      microbatch_size=self.microbatch_size,
      num_draws=self.num_draws,
      sample_size=self.sample_size,
    )
    if not self.tolerance > 0:
      raise errors.InputError(
        f'tolerance is {self.tolerance}, expected a positive number'
      )
    damping_lib.parse(self.damping)
    if self.scale is not None and not 0 < self.scale < math.inf:
      raise errors.InputError(
        f'scale is {self.scale}, expected a finite number > 0'
      )
    if self.method == 'ekfac' and self.curvature == 'hessian':
      raise errors.InputError(
        "method 'ekfac' has no hessian; choose --curvature gauss_newton or "
        'empirical_fisher'
      )

  @property
  def used_damping(self) -> damping_lib.Damping:
    """What is asked for, or the default of the method."""
    is_by_layers = self.method == 'ekfac'
    return damping_lib.parse(
      self.damping, damping_lib.OF_LAYERS if is_by_layers else damping_lib.NONE
    )
