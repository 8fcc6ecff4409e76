"""Ritz pairs: approximate eigenpairs from an Arnoldi iteration.

See `arnoldi` for the references.
"""

from collections.abc import Callable
import dataclasses

import numpy as np

from influence_core.eigenpairs import arnoldi

# Directions kept at a restart beyond those wanted, as a part of what is free.
_KEPT_BEYOND_WANTED = 0.4


@dataclasses.dataclass(frozen=True)
class RitzPairs:
  """Approximate eigenpairs.

  Attributes:
    eigenvalues: [n] float64.
    coefficients: [n, num_steps] float64; row i combines the Krylov vectors to
      the eigenvector of eigenvalue i.
    residual_norms: [n] float64, |Hv - lambda v| of each pair.
  """

  eigenvalues: np.ndarray
  coefficients: np.ndarray
  residual_norms: np.ndarray

  def __len__(self) -> int:
    return len(self.eigenvalues)

  @property
  def relative_residuals(self) -> np.ndarray:
    """[n] |Hv - lambda v| / |lambda|."""
    return self.residual_norms / np.abs(self.eigenvalues)

  def take(self, numbers: np.ndarray) -> 'RitzPairs':
    return RitzPairs(
      self.eigenvalues[numbers],
      self.coefficients[numbers],
      self.residual_norms[numbers],
    )


def ritz_pairs(state: arnoldi.ArnoldiState) -> RitzPairs:
  """All pairs, by the symmetrised Hessenberg matrix in float64, largest first.

  The residual is |hessenberg y - lambda [y; 0]|, which equals |Hv - lambda v|
  as far as the Krylov vectors are orthonormal, at no further product. What
  rounding of stored vectors adds has no common direction.
  """
  steps = state.num_steps
  eigenvalues, eigenvectors = _symmetric_eigenpairs(state.hessenberg)
  residuals = state.hessenberg @ eigenvectors
  residuals[:steps] -= eigenvectors * eigenvalues
  squared = np.sum(np.square(residuals), axis=0)
  squared += np.square(state.rounding) @ np.square(eigenvectors)
  return RitzPairs(eigenvalues, eigenvectors.T, np.sqrt(squared))


def leading_pairs(
  pairs: RitzPairs, projection_dim: int, *, keep_negative: bool
) -> RitzPairs:
  """Up to `projection_dim` usable pairs, by decreasing |eigenvalue|.

  Args:
    pairs: all pairs.
    projection_dim: pairs wanted.
    keep_negative: whether negative eigenvalues are usable too.
  """
  return pairs.take(_leading(pairs.eigenvalues, keep_negative)[:projection_dim])


def restart_policy(
  projection_dim: int, max_steps: int, *, keep_negative: bool
) -> arnoldi.RestartPolicy:
  """Restarts with the wanted pairs and the best of those after them."""
  free = max_steps - projection_dim
  num_kept = projection_dim + int(_KEPT_BEYOND_WANTED * free)

  def choose(hessenberg: np.ndarray) -> np.ndarray:
    eigenvalues, eigenvectors = _symmetric_eigenpairs(hessenberg)
    wanted = _leading(eigenvalues, keep_negative)[:projection_dim]
    # Large negative ones would come back if they were left out.
    others = np.setdiff1d(
      _leading(eigenvalues, True), wanted, assume_unique=True
    )
    others = others[np.argsort(-np.abs(eigenvalues[others]), kind='stable')]
    return eigenvectors.T[np.concatenate([wanted, others])[:num_kept]]

  return arnoldi.RestartPolicy(max_steps, choose)


def has_converged(
  projection_dim: int, tolerance: float, *, keep_negative: bool
) -> Callable[[arnoldi.ArnoldiState], bool]:
  """Whether all wanted pairs have a relative residual up to `tolerance`."""

  def converged(state: arnoldi.ArnoldiState) -> bool:
    if state.num_steps < projection_dim:
      return False
    pairs = leading_pairs(
      ritz_pairs(state), projection_dim, keep_negative=keep_negative
    )
    enough = len(pairs) == projection_dim
    return enough and bool(np.all(pairs.relative_residuals <= tolerance))

  return converged


def _symmetric_eigenpairs(
  hessenberg: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
  """Eigenvalues, largest first, and eigenvectors as columns."""
  square = hessenberg[: hessenberg.shape[1]]
  eigenvalues, eigenvectors = np.linalg.eigh((square + square.T) / 2)
  order = np.argsort(-eigenvalues, kind='stable')
  return eigenvalues[order], eigenvectors[:, order]


def _leading(eigenvalues: np.ndarray, keep_negative: bool) -> np.ndarray:
  """Indices of usable eigenvalues, by decreasing magnitude."""
  magnitudes = np.abs(eigenvalues)
  # Below this an eigenvalue cannot be told from zero in float32 products, and
  # dividing by it would let rounding noise decide the influence.
  usable = magnitudes > arnoldi.BREAKDOWN_TOLERANCE * magnitudes.max(initial=0)
  if not keep_negative:
    usable &= eigenvalues > 0
  order = np.argsort(-magnitudes, kind='stable')
  return order[usable[order]]
