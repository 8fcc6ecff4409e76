"""Type aliases shared by all of `influence_core`."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray

# Any pytree of arrays: a Flax `variables` dict, an nnx state, a dataclass.
Params = Any

# Any pytree of arrays whose leading dimension is the batch: [batch, ...].
Features = Any

# (params, features) -> [batch] losses. Pure, and independent between examples.
PerExampleLoss = Callable[[Params, Features], jax.Array]

# (params, features) -> [batch, tokens] losses that add up to those of examples.
TokenLosses = Callable[[Params, Features], jax.Array]

# Parameters by path ('params/Dense_0/kernel'), as `parameter_selection` makes
# them. Eigenvectors have the same keys and one more leading dimension.
SelectedParameters = Mapping[str, Array]


class ProjectedExamples(NamedTuple):
  """What is kept of each example.

  Attributes:
    projections: [num_examples, projection_dim] float32, not scaled by the
      eigenvalues.
    squared_gradient_norms: [num_examples] float32, |g|^2 over the selected
      parameters.
    losses: [num_examples] float32.
  """

  projections: Array
  squared_gradient_norms: Array
  losses: Array


# Called with the number of steps done and the number of steps in all.
ProgressCallback = Callable[[int, int], None]


def no_progress(num_done: int, num_total: int) -> None:
  """Ignores progress: the default of every `progress` argument."""
  del num_done, num_total
