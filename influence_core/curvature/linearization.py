"""A function that is linear in one argument, cut in two.

What does not depend on that argument is computed once by `prepare`; `apply`
does the rest at every call. For curvature products the first part is the
forward and backward pass at the parameters, the second its derivative along a
vector.

`jax.linearize` gives a function of the vector alone that holds everything else
as arrays: it is a pytree, whose leaves are what must be kept. A leaf that is
one of the inputs themselves (a parameter, the features) is on the device
already: only its number among the inputs is remembered.

    prepare(W, x)  ->  [h = tanh(x @ W), ...]      kept between products
    apply(kept, v, W, x)  ->  the product with v   W and x are given again
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


class Linearization:
  """The two parts; `prepare` must be traced before `apply`, and once only."""

  def __init__(self, function: Callable, like: Any):
    """Traces nothing yet.

    Args:
      function: (vector, *inputs) -> pytree, linear in the pytree `vector`.
      like: pytree of arrays in the shapes of a vector, which is float32.
    """
    self._function = function
    self._shapes = jax.tree.map(jnp.shape, like)
    self._treedef: Any = None
    self._sources: list[int | None] = []

  def prepare(self, *inputs: Any) -> list[jax.Array]:
    """What `apply` needs besides the inputs themselves."""
    zero = jax.tree.map(
      lambda shape: jnp.zeros(shape, jnp.float32),
      self._shapes,
      is_leaf=lambda node: isinstance(node, tuple),
    )
    _, linear = jax.linearize(lambda v: self._function(v, *inputs), zero)
    leaves, self._treedef = jax.tree.flatten(linear)
    numbers = {id(leaf): n for n, leaf in enumerate(jax.tree.leaves(inputs))}
    # Inputs are not kept a second time.
    self._sources = [numbers.get(id(leaf)) for leaf in leaves]
    return [
      leaf
      for leaf, source in zip(leaves, self._sources, strict=True)
      if source is None
    ]

  def apply(self, kept: list[jax.Array], vector: Any, *inputs: Any) -> Any:
    """function(vector, *inputs) for the inputs that `kept` was made from."""
    given, rest = jax.tree.leaves(inputs), iter(kept)
    leaves = [
      next(rest) if source is None else given[source]
      for source in self._sources
    ]
    return jax.tree.unflatten(self._treedef, leaves)(vector)
