"""The basis: leading eigenpairs of the curvature, with the report on them.

Every gradient of the corpus and of a query is projected on this basis once;
influence is then an inner product of projections weighted by 1/eigenvalue.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.baselines import random_basis
from influence_core.devices import multi_device
from influence_core.eigenpairs import arnoldi, krylov_vectors, ritz
from influence_core.eigenpairs import reports as query_basis
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
    seconds: wall time of the iteration.
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
  tolerance: float = basis_trust.RELIABLE_RESIDUAL
  trace: basis_trust.TraceEstimate | None = None
  second_sample: basis_trust.SubspaceAgreement | None = None
  doubled_sample: basis_trust.SubspaceAgreement | None = None
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

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

  @classmethod
  def from_json(cls, content: Mapping[str, Any]) -> 'BasisReport':
    values: dict[str, Any] = {
      key: tuple(value) if isinstance(value, list) else value
      for key, value in content.items()
    }
    if values['trace']:
      values['trace'] = basis_trust.TraceEstimate(**values['trace'])
    for name in ('second_sample', 'doubled_sample'):
      if values[name]:
        values[name] = basis_trust.SubspaceAgreement(
          tuple(values[name]['cosines'])
        )
    return cls(**values)


Report = BasisReport | random_basis.RandomReport | query_basis.QueryReport


def report_from_json(content: Mapping[str, Any]) -> Report:
  """A report of any kind from its fields."""
  if 'query_ids' in content:
    return query_basis.QueryReport.from_json(content)
  if 'method' in content:
    return random_basis.RandomReport(**content)
  return BasisReport.from_json(content)


@dataclasses.dataclass(frozen=True, repr=False)
class Basis:
  """Eigenpairs by decreasing |eigenvalue|.

  Attributes:
    eigenvalues: [projection_dim] float64.
    eigenvectors: [projection_dim, *parameter shape] by parameter path, float32
      or bfloat16.
    report: its quality.
  """

  eigenvalues: np.ndarray
  eigenvectors: Mapping[str, types.Array]
  report: Report

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

  def __repr__(self) -> str:
    size = parameter_selection.num_parameters(self.eigenvectors)
    return (
      f'<Basis of {self.projection_dim} vectors over '
      f'{size // self.projection_dim:,} parameters in '
      f'{len(self.eigenvectors)} arrays, {spectrum_ends(self.eigenvalues)}>'
    )


def spectrum_ends(eigenvalues: Sequence[float] | np.ndarray) -> str:
  """The first and the last eigenvalue in words."""
  return f'eigenvalues {eigenvalues[0]:.4g} to {eigenvalues[-1]:.4g}'


def kept_pairs(
  state: arnoldi.ArnoldiState, projection_dim: int, *, keep_negative: bool
) -> ritz.RitzPairs:
  """The leading `projection_dim` pairs of an iteration.

  Fewer come back when fewer exist: after a breakdown, or when too few
  eigenvalues are positive.

  Raises:
    errors.InputError: No pair is left.
  """
  pairs = ritz.leading_pairs(
    ritz.ritz_pairs(state), projection_dim, keep_negative=keep_negative
  )
  if not len(pairs):
    raise errors.InputError(
      'no eigenvalue of the sample is positive: the model is at no minimum of '
      'this loss; train it further or keep negative eigenvalues'
    )
  return pairs


def make_report(
  state: arnoldi.ArnoldiState,
  pairs: ritz.RitzPairs,
  vectors: krylov_vectors.KrylovVectors,
  *,
  sample_size: int,
  seconds: float,
  tolerance: float = basis_trust.RELIABLE_RESIDUAL,
) -> BasisReport:
  """The report on an iteration, without what further products would tell.

  Args:
    state: the last one.
    pairs: those that are kept.
    vectors: the Krylov vectors.
    sample_size: number of examples behind the operator.
    seconds: wall time of the iteration.
    tolerance: largest residual of a pair that can be relied on.
  """
  spectrum = ritz.ritz_pairs(state).eigenvalues
  mass = np.abs(spectrum).sum()
  negative = spectrum[spectrum < 0]
  return BasisReport(
    residuals=tuple(pairs.relative_residuals.tolist()),
    orthogonality_error=krylov_vectors.orthogonality_error(vectors),
    spectrum=tuple(spectrum.tolist()),
    negative_mass=float(np.abs(negative).sum() / mass) if mass else 0.0,
    num_iterations=state.num_products,
    broke_down=state.broke_down,
    sample_size=sample_size,
    seconds=seconds,
    tolerance=tolerance,
  )


def eigenvectors(
  vectors: krylov_vectors.KrylovVectors,
  pairs: ritz.RitzPairs,
  selected: types.SelectedParameters,
) -> Iterator[tuple[str, np.ndarray]]:
  """Forms the eigenvectors parameter by parameter, never all at once.

  Args:
    vectors: the Krylov vectors, over the parameters in the order of their
      sorted paths.
    pairs: the eigenpairs.
    selected: the parameters by path, for their shapes.

  Yields:
    (path, [projection_dim, *parameter shape] float32), the same in every
    process.
  """
  start = 0
  for path in sorted(selected):
    shape = selected[path].shape
    stop = start + int(np.prod(shape))
    columns = _combined(vectors, pairs.coefficients, start, stop)
    yield path, columns.reshape(len(pairs), *shape)
    start = stop


def _combined(vectors, coefficients, start: int, stop: int) -> np.ndarray:
  """Columns of combinations, wherever they are."""
  if jax.process_count() == 1:
    return vectors.combine(coefficients, start, stop)
  first = jax.process_index() * vectors.num_columns
  low, high = (
    int(np.clip(column - first, 0, vectors.num_columns))
    for column in (start, stop)
  )
  columns = np.zeros((len(coefficients), stop - start), np.float32)
  if low < high:
    own = slice(low + first - start, high + first - start)
    columns[:, own] = vectors.combine(coefficients, low, high)
  return multi_device.sum_over_processes(columns)
