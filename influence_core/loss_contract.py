"""What a loss must be, tried on a few examples before any work starts.

It is traced, which tells most mistakes without computing anything: a loss that
can be traced and differentiated for these examples, for one and for one more
can be for all. Then what was traced is evaluated, alone and together, operation
by operation: a few examples are not worth compiling for.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types, user_code

# (params, [batch, ...] features) -> [batch] losses, jitted: traced once for each
# number of examples.
JittedLoss = jax.stages.Wrapped

_LOSS = 'per_example_loss'

# Allowed difference between two ways of computing a loss or a projection,
# relative to its size. Sums of many float32 terms in two orders differ by less
# than 1e-5.
FLOAT32_TOLERANCE = 1e-4
# bfloat16 rounds by 4e-3, the default float32 products of accelerators by up
# to that; rounding of intermediate values accumulates over layers.
LOW_PRECISION_TOLERANCE = 3e-2


def named(per_example_loss: Callable[..., Any]) -> str:
  """What a loss is called in errors, with its place."""
  return user_code.named(_LOSS, per_example_loss)


def check_form(
  per_example_loss: JittedLoss,
  params: types.Params,
  features: types.Features,
) -> None:
  """Refuses what is no loss per example, for any number of examples.

  Args:
    per_example_loss: jitted.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays, a few real examples.

  Raises:
    errors.InputError: It fails, cannot be traced, needs one batch size, or
      gives something else than one floating-point number for each example.
  """
  count = len(jax.tree.leaves(features)[0])
  losses = trace(per_example_loss, params, features)
  found = getattr(losses, 'shape', None)
  if found is None:
    raise errors.InputError(
      f'{named(per_example_loss)} returned a {type(losses).__name__}, expected '
      f'an array of shape {(count,)}, one loss per example; return the losses '
      'alone'
    )
  if found != (count,):
    next_step = (
      'sum or average over the tokens of each example'
      if found and len(found) > 1 and found[0] == count
      else 'do not reduce over the batch'
    )
    raise errors.InputError(
      f'{named(per_example_loss)} returned shape {found}, expected {(count,)}, '
      f'one loss per example; {next_step}'
    )
  if not jnp.issubdtype(losses.dtype, jnp.floating):
    raise errors.InputError(
      f'{named(per_example_loss)} returned {losses.dtype}, expected a '
      'floating-point type'
    )
  for other in (1, count + 1):
    trace_batch(per_example_loss, params, features, other)


def trace(
  per_example_loss: JittedLoss,
  params: types.Params,
  features: types.Features,
) -> Any:
  """Shapes and dtypes of what a loss gives.

  Args:
    per_example_loss: jitted.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays.

  Raises:
    errors.InputError: With the reason why it cannot be traced.
  """
  try:
    return _traced(per_example_loss, params, features).out_info
  except user_code.ERRORS as error:
    reason = user_code.described(error, per_example_loss)
    if _runs_by_itself(per_example_loss, params, features):
      raise errors.InputError(
        f'{_LOSS} cannot be traced ({reason}); it must be pure and made of '
        'jax.numpy operations: no float(), numpy or Python branch on values, '
        'and no change of a module from outside (nnx.split it before, '
        'nnx.merge inside)'
      ) from error
    raise errors.InputError(
      f'{_LOSS} failed on a few examples ({reason}); do model, checkpoint and '
      'preprocess belong together?'
    ) from error


def trace_batch(
  per_example_loss: JittedLoss,
  params: types.Params,
  features: types.Features,
  num_examples: int,
) -> None:
  """Refuses a loss that needs another batch size.

  Args:
    per_example_loss: jitted, which has been traced for the number of examples
      that there are.
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
    found = _traced(per_example_loss, params, batch).out_info.shape
  except user_code.ERRORS as error:
    reason = user_code.described(error, per_example_loss)
    raise errors.InputError(
      f'{_LOSS} fails on a batch of {what} ({reason}); {next_step}'
    ) from error
  if found not in ((num_examples,), (num_examples, *found[1:2])):
    raise errors.InputError(
      f'{named(per_example_loss)} returned shape {found} for a batch of '
      f'{what}, expected {(num_examples,)}; {next_step}'
    )


def check_differentiable(
  per_example_loss: JittedLoss,
  params: types.Params,
  paths: Collection[str],
  features: types.Features,
) -> None:
  """Refuses a loss that has no gradient, or none but zero.

  Args:
    per_example_loss: jitted.
    params: pytree of arrays.
    paths: parameters that gradients are taken for.
    features: pytree of [num_examples, ...] arrays, a few real examples.

  Raises:
    errors.InputError: With JAX's own reason; or whatever the parameters and the
      example, the gradient is zero.
  """

  def gradient(params, features):
    leaves = parameter_selection.all_parameters(params)
    selected = {path: leaves[path] for path in paths}
    return parameter_selection.batch_gradient(
      per_example_loss, params, selected, features
    )

  try:
    jaxpr = jax.make_jaxpr(gradient)(*_structs((params, features)))
  except user_code.ERRORS as error:
    reason = user_code.described(error, per_example_loss)
    raise errors.InputError(
      f'{_LOSS} cannot be differentiated ({reason}); '
      'write that part in jax.numpy, or give it a jax.custom_vjp with both '
      'rules'
    ) from error
  if _uses_its_inputs(jaxpr.jaxpr):
    return
  constant = jax.tree.leaves(jax.jit(gradient)(params, features))
  if not any(np.asarray(leaf).any() for leaf in constant):
    raise errors.InputError(
      f'the gradient of {named(per_example_loss)} by the selected parameters '
      'is zero for every example: the loss does not depend on them, or only '
      'through jax.lax.stop_gradient, rounding, comparisons or integers'
    )


def check_independent(
  per_example_loss: JittedLoss,
  params: types.Params,
  features: types.Features,
  *,
  ids: Sequence[str],
  together: np.ndarray,
) -> None:
  """Refuses a loss of an example that changes with the rest of its batch.

  Args:
    per_example_loss: jitted; also one that gives [batch, tokens] losses.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays, a few real examples.
    ids: names of the examples in errors.
    together: [num_examples] or [num_examples, tokens] losses of the examples
      in one batch, which may have had others besides.

  Raises:
    errors.InputError: Names an example whose loss changes, or is not finite.
  """
  alone = np.concatenate(
    [
      evaluate(per_example_loss, params, example)
      for example in single_examples(features)
    ]
  )
  finite = np.isfinite(together) & np.isfinite(alone)
  if not finite.all():
    place = _first_place(~finite)
    raise errors.InputError(
      f'the loss of example {_named(ids, place)} is {together[place]} in a '
      f'batch and {alone[place]} alone, expected finite numbers; check the '
      'parameters and the loss, or leave the example out'
    )
  differences = np.abs(together - alone)
  tolerance = _tolerance(per_example_loss, params, features)
  if np.max(differences) > tolerance * (1 + np.max(np.abs(alone))):
    place = _first_place(differences == np.max(differences))
    raise errors.InputError(
      f'the loss of example {_named(ids, place)} is {together[place]:.6g} in a '
      f'batch and {alone[place]:.6g} alone; {named(per_example_loss)} must not '
      'mix the examples of a batch: evaluate batch normalisation with its '
      'running averages, and dropout deterministically'
    )


def evaluate(
  per_example_loss: JittedLoss,
  params: types.Params,
  features: types.Features,
) -> np.ndarray:
  """[num_examples] float32 losses, or [num_examples, tokens].

  Raises:
    errors.InputError: It fails, such as a host callback in it.
  """
  with user_code.user_errors(_LOSS, per_example_loss):
    traced = _traced(per_example_loss, params, features)
    arrays = jax.tree.leaves((params, features))
    if len(traced.jaxpr.in_avals) != len(arrays):
      # A value of another trace came in, of which JAX tells when it compiles.
      return np.asarray(per_example_loss(params, features), np.float32)
    [losses] = jax_core.jaxpr_as_fun(traced.jaxpr)(*arrays)
    return np.asarray(losses, np.float32)


def single_examples(features: types.Features) -> list[types.Features]:
  """Batches of one."""
  count = len(jax.tree.leaves(features)[0])
  return [
    jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i : i + 1], features)
    for i in range(count)
  ]


def uses_low_precision(jaxpr: jax_core.Jaxpr) -> bool:
  """Whether any value of a traced function is shorter than float32."""
  return any(
    jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    for dtype in _dtypes(jaxpr)
  )


def _traced(per_example_loss, params, features) -> jax.stages.Traced:
  return per_example_loss.trace(*_structs((params, features)))


def _structs(tree: Any) -> Any:
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree
  )


def _runs_by_itself(per_example_loss, params, features) -> bool:
  """Whether a loss that cannot be traced gives something without."""
  try:
    with jax.disable_jit():
      per_example_loss(*jax.tree.map(jnp.asarray, (params, features)))
  except user_code.ERRORS:
    return False
  return True


def _uses_its_inputs(jaxpr: jax_core.Jaxpr) -> bool:
  """Whether any output is computed from any input."""
  needed = {x for x in jaxpr.outvars if not isinstance(x, jax_core.Literal)}
  for equation in reversed(jaxpr.eqns):
    if needed.intersection(equation.outvars):
      needed |= {
        x for x in equation.invars if not isinstance(x, jax_core.Literal)
      }
  return bool(needed.intersection(jaxpr.invars))


def _tolerance(per_example_loss, params, features) -> float:
  traced = _traced(per_example_loss, params, features)
  is_exact = not uses_low_precision(traced.jaxpr.jaxpr)
  if jax.default_backend() == 'cpu' and is_exact:
    return FLOAT32_TOLERANCE
  return LOW_PRECISION_TOLERANCE


def _first_place(wanted: np.ndarray) -> tuple[int, ...]:
  """Where [num_examples] or [num_examples, tokens] is true first."""
  return tuple(np.argwhere(wanted)[0].tolist())


def _named(ids: Sequence[str], place: tuple[int, ...]) -> str:
  token = f' at token {place[1]}' if len(place) > 1 else ''
  return f'{ids[place[0]]}{token}'


def _dtypes(jaxpr: jax_core.Jaxpr) -> Iterator[np.dtype]:
  variables = [*jaxpr.invars]
  for equation in jaxpr.eqns:
    variables += equation.outvars
    for inner in jax_core.jaxprs_in_params(equation.params):
      yield from _dtypes(inner)
  yield from (x.aval.dtype for x in variables if hasattr(x.aval, 'dtype'))
