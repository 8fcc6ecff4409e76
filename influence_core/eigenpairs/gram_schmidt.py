"""Orthogonalisation of a vector against stored ones, whatever stores them.

References:
  Giraud, Langou and Rozloznik, "The loss of orthogonality in the Gram-Schmidt
    orthogonalization process", Computers and Mathematics with Applications 50,
    2005: when two passes suffice.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# A pass that shortens a vector by more than this leaves overlaps that are
# large against what remains.
_SHORTENED = 0.5
# What is shortened again and again is rounding noise of a vector in the space
# of those stored.
_MAX_PASSES = 3


class Pass(NamedTuple):
  """A vector after a pass.

  Attributes:
    residual: what is left of it.
    missed: [num_vectors] float64 coefficients that were found and taken out.
    before: squared length when those that were known had been taken out.
    after: squared length of the residual.
  """

  residual: Any
  missed: np.ndarray
  before: float
  after: float


def orthogonalise(
  take_out: Callable[[Any, np.ndarray], Pass], vector: Any, known: np.ndarray
) -> tuple[Any, np.ndarray, float]:
  """Classical Gram-Schmidt, repeated while it changes much.

  Args:
    take_out: (vector, known coefficients) -> a pass, which takes out these and
      then the overlaps that it finds.
    vector: to be orthogonalised.
    known: [num_vectors] float64 coefficients known beforehand.

  Returns:
    The residual, the [num_vectors] float64 coefficients of all that was taken
    out, the length of the residual.
  """
  coefficients = known
  for _ in range(_MAX_PASSES):
    vector, missed, before, after = take_out(vector, known)
    coefficients = coefficients + missed
    known = np.zeros_like(known)
    if after >= _SHORTENED**2 * before:
      break
  return vector, coefficients, float(np.sqrt(after))
