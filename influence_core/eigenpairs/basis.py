"""The basis: leading eigenpairs of the curvature, with the report on them.

Every gradient of the corpus and of a query is projected on this basis once;
influence is then an inner product of projections weighted by 1/eigenvalue.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses

import jax
import numpy as np

from influence_core import choices, errors, parameter_selection, types
from influence_core.devices import multi_device
from influence_core.eigenpairs import (
  arnoldi,
  krylov_vectors,
  reports,
  ritz,
  trust,
)


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
  report: reports.Report

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
  tolerance: float = choices.RELIABLE_RESIDUAL,
  trace: trust.TraceEstimate | None = None,
) -> reports.BasisReport:
  """The report on an iteration, without comparison with other samples.

  Args:
    state: the last one.
    pairs: those that are kept.
    vectors: the Krylov vectors.
    sample_size: number of examples behind the operator.
    seconds: wall time of the iteration and of the estimate of the trace.
    tolerance: largest residual of a pair that can be relied on.
    trace: of the operator; None if not estimated.
  """
  spectrum = ritz.ritz_pairs(state).eigenvalues
  mass = np.abs(spectrum).sum()
  negative = spectrum[spectrum < 0]
  return reports.BasisReport(
    residuals=tuple(pairs.relative_residuals.tolist()),
    orthogonality_error=krylov_vectors.orthogonality_error(vectors),
    spectrum=tuple(spectrum.tolist()),
    negative_mass=float(np.abs(negative).sum() / mass) if mass else 0.0,
    num_iterations=state.num_products,
    broke_down=state.broke_down,
    sample_size=sample_size,
    seconds=seconds,
    tolerance=tolerance,
    trace=trace,
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
