"""Traces a loss for some number of examples, or says why it cannot be."""

from collections.abc import Callable, Iterable, Iterator
import functools
import itertools
from typing import Any

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types, user_code


class NamedLoss:
  """A loss of the user's, traced once for each number of examples.

  Attributes:
    function: (params, [batch, ...] features) -> [batch] losses, if it is as it
      must be.
    name: what it is called in errors.
  """

  def __init__(
    self,
    function: Callable[[types.Params, types.Features], Any],
    name: str = 'per_example_loss',
  ):
    """Traces nothing yet."""
    self.function = function
    self.name = name

    @functools.wraps(function)  # It may be no function, or one of a generator.
    def loss(params, features):
      return function(params, features)

    self._jitted = jax.jit(loss)

  def __call__(self, params: types.Params, features: types.Features) -> Any:
    return self._jitted(params, features)

  @property
  def title(self) -> str:
    """Its name, and where it begins."""
    return user_code.named(self.name, self.function)

  def describe(self, error: BaseException) -> str:
    """What it raised, and where."""
    return user_code.described(error, self.function)

  def trace(
    self, params: types.Params, features: types.Features
  ) -> jax.stages.Traced:
    """The loss as JAX sees it; raises whatever the loss does."""
    return self._jitted.trace(*structs((params, features)))


def check_traceable(
  loss: NamedLoss,
  params: types.Params,
  features: types.Features,
) -> Any:
  """Shapes and dtypes of what a loss gives.

  Args:
    loss: of the user's.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays.

  Raises:
    errors.InputError: With the reason why it cannot be traced.
  """
  try:
    return loss.trace(params, features).out_info
  except user_code.ERRORS as error:
    reason = loss.describe(error)
    if _runs_by_itself(loss, params, features):
      raise errors.InputError(
        f'{loss.name} cannot be traced ({reason}); it must be pure and made of '
        'jax.numpy operations: no float(), numpy or Python branch on values, '
        'and no change of a module from outside (nnx.split it before, '
        'nnx.merge inside)'
      ) from error
    raise errors.InputError(
      f'{loss.name} failed on a few examples ({reason}); do model, checkpoint '
      'and preprocess belong together?'
    ) from error


def check_batch_size(
  loss: NamedLoss,
  params: types.Params,
  features: types.Features,
  num_examples: int,
) -> None:
  """Refuses a loss that needs another batch size.

  Args:
    loss: has been traced for the number of examples that there are.
    params: pytree of arrays.
    features: pytree of [any, ...] arrays, for their shapes.
    num_examples: to trace it for.

  Raises:
    errors.InputError: It fails, or gives something else than so many losses.
  """
  batch = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
      (num_examples, *leaf.shape[1:]), leaf.dtype
    ),
    features,
  )
  what = 'one example' if num_examples == 1 else f'{num_examples} examples'
  next_step = (
    'it must work for any batch size, so take the batch size from the features'
  )
  try:
    found = loss.trace(params, batch).out_info.shape
  except user_code.ERRORS as error:
    reason = loss.describe(error)
    raise errors.InputError(
      f'{loss.name} fails on a batch of {what} ({reason}); {next_step}'
    ) from error
  if found not in ((num_examples,), (num_examples, *found[1:2])):
    raise errors.InputError(
      f'{loss.title} returned shape {found} for a batch of {what}, expected '
      f'{(num_examples,)}; {next_step}'
    )


def structs(tree: Any) -> Any:
  """Shapes and dtypes of a tree of arrays."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree
  )


def uses_low_precision(jaxpr: jax_core.Jaxpr) -> bool:
  """Whether any value of a traced function is shorter than float32."""
  return any(
    jnp.issubdtype(aval.dtype, jnp.floating) and jnp.finfo(aval.dtype).bits < 32
    for aval in itertools.chain(_shapes(jaxpr.invars), _computed(jaxpr))
  )


def largest_bytes(jaxpr: jax_core.Jaxpr) -> int:
  """Of the largest value that a traced function computes."""
  return max((x.size * x.dtype.itemsize for x in _computed(jaxpr)), default=0)


def _runs_by_itself(loss, params, features) -> bool:
  """Whether a loss that cannot be traced gives something without."""
  try:
    with jax.disable_jit():
      loss(*jax.tree.map(jnp.asarray, (params, features)))
  except user_code.ERRORS:
    return False
  return True


def _computed(jaxpr: jax_core.Jaxpr) -> Iterator[Any]:
  for equation in jaxpr.eqns:
    for inner in jax_core.jaxprs_in_params(equation.params):
      yield from _computed(inner)
    yield from _shapes(equation.outvars)


def _shapes(variables: Iterable[Any]) -> Iterator[Any]:
  return (x.aval for x in variables if hasattr(x.aval, 'dtype'))
