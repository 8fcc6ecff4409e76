"""Which tokens of an example its influence comes from.

The score of an example is <v, g>: v depends on the query, and the gradient g is
the sum of the gradients g_t of the losses of its tokens. <v, g_t> is the
derivative of the loss of token t along v, so that one forward-mode pass gives
the scores of all tokens, and these add up to that of the example.
"""

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import parameter_selection, types
from influence_core.devices import parameter_layout


class TokenScores:
  """Scores of the tokens of examples, compiled for each shape of them."""

  def __init__(self, token_losses: types.TokenLosses, params: types.Params):
    """Compiles nothing yet.

    Args:
      token_losses: of the model.
      params: pytree of arrays.
    """
    self._params = parameter_layout.fit_devices(params)

    def along(params, direction, features):
      leaves = parameter_selection.all_parameters(params)
      selected = {path: leaves[path] for path in direction}

      def losses(selected):
        replaced = parameter_selection.replace_parameters(params, selected)
        return token_losses(replaced, features).astype(jnp.float32)

      tangents = {
        path: jnp.asarray(move, selected[path].dtype)
        for path, move in direction.items()
      }
      return jax.jvp(losses, (selected,), (tangents,))[1]

    self._along = jax.jit(along)

  def __call__(
    self, direction: types.SelectedParameters, features: types.Features
  ) -> np.ndarray:
    """[batch, tokens] float32 scores.

    Args:
      direction: v, by path of the parameters that it is not zero in.
      features: pytree of [batch, ...] arrays.
    """
    return np.asarray(self._along(self._params, direction, features))
