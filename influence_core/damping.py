"""What is added to eigenvalues: a number, or that times their mean.

A mean over all eigenvalues of a layer, or of a whole model, is a trace over a
number of parameters: its mean curvature. It takes no time to import.

References:
  Grosse et al., "Studying Large Language Model Generalization with Influence
  Functions", 2023: a tenth of the mean eigenvalue of each layer.
  kronfluence, `kronfluence/factor/config.py`: the same for each module, where
  no damping factor is given (HEURISTIC_DAMPING_SCALE).
"""

import dataclasses
import math
from typing import Any

from influence_core import errors


@dataclasses.dataclass(frozen=True)
class Damping:
  """A damping as it was asked for.

  Attributes:
    value: in units of eigenvalues, or times a mean curvature.
    is_relative: whether it is times a mean curvature.
  """

  value: float
  is_relative: bool = False

  def amount(self, mean_curvature: Any) -> Any:
    """What is added to eigenvalues.

    Args:
      mean_curvature: of them; a number, or an array where layers differ.
    """
    return self.value * mean_curvature if self.is_relative else self.value

  def of_model(self, mean_curvature: float | None) -> float:
    """What is added to all eigenvalues of a model.

    Args:
      mean_curvature: of all parameters, which a Hessian may have below zero;
        None where it is not known.

    Raises:
      errors.InputError: Damping is relative, and it is below zero or unknown.
    """
    if not self.is_relative:
      return self.value
    if mean_curvature is None:
      raise errors.InputError(
        f'damping is {self.value:g}x, but the mean curvature is not known: the '
        'basis is of an earlier version, of --num_trace_probes 0, or not of '
        'fit-basis; fit it again and project, or give damping as a number'
      )
    if not mean_curvature >= 0:
      raise errors.InputError(
        f'damping is {self.value:g}x, but the mean curvature is '
        f'{mean_curvature:.3g}, expected at least 0: the model is at no '
        'minimum of this loss; give damping as a number, or fit with '
        '--curvature gauss_newton'
      )
    return self.value * mean_curvature


NONE = Damping(0.0)
# What layers get, each by itself, where nothing is asked for.
OF_LAYERS = Damping(0.1, is_relative=True)


def parse(given: float | str | None, default: Damping = NONE) -> Damping:
  """Reads a number, or one with x after it such as 0.1x.

  Args:
    given: as typed.
    default: for None.

  Raises:
    errors.InputError: It is nothing of these, negative or not finite.
  """
  if given is None:
    return default
  text = str(given)
  try:
    value = float(text.removesuffix('x'))
  except ValueError:
    value = math.nan
  if not 0 <= value < math.inf:
    raise errors.InputError(
      f'damping is {given!r}, expected a finite number >= 0, or one with x '
      'after it'
    )
  return Damping(value, text.endswith('x'))
