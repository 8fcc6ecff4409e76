"""What a loss must be, tried on a few examples before any work starts.

It is traced, which tells most mistakes without computing anything: a loss that
can be traced and differentiated for these examples, for one and for one more
can be for all. Then what was traced is evaluated, alone and together, operation
by operation: a few examples are not worth compiling for.
"""

from collections.abc import Collection, Sequence
import itertools

import jax
from jax.extend import core as jax_core
import jax.numpy as jnp
import numpy as np

from influence_core import (
  errors,
  loss_tracing,
  parameter_selection,
  types,
  user_code,
)

# Allowed difference between two ways of computing a loss or a projection,
# relative to its size. Sums of many float32 terms in two orders differ by less
# than 1e-5.
FLOAT32_TOLERANCE = 1e-4
# bfloat16 rounds by 4e-3, the default float32 products of accelerators by up
# to that; rounding of intermediate values accumulates over layers.
LOW_PRECISION_TOLERANCE = 3e-2

# Of one value at a time, if two examples have less: several are held at once,
# such as the logits of long texts and what a loss makes of them.
_LARGEST_BYTES = 2**29


def check_form(
  loss: loss_tracing.NamedLoss,
  params: types.Params,
  features: types.Features,
) -> None:
  """Refuses what is no loss per example, for any number of examples.

  Args:
    loss: of the user's.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays, a few real examples.

  Raises:
    errors.InputError: It fails, cannot be traced, needs one batch size, or
      gives something else than one floating-point number for each example.
  """
  count = len(jax.tree.leaves(features)[0])
  losses = loss_tracing.check_traceable(loss, params, features)
  found = getattr(losses, 'shape', None)
  if found is None:
    raise errors.InputError(
      f'{loss.title} returned a {type(losses).__name__}, expected '
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
      f'{loss.title} returned shape {found}, expected {(count,)}, '
      f'one loss per example; {next_step}'
    )
  if not jnp.issubdtype(losses.dtype, jnp.floating):
    raise errors.InputError(
      f'{loss.title} returned {losses.dtype}, expected a floating-point type'
    )
  for other in (1, count + 1):
    loss_tracing.check_batch_size(loss, params, features, other)


def check_differentiable(
  loss: loss_tracing.NamedLoss,
  params: types.Params,
  paths: Collection[str],
  features: types.Features,
) -> None:
  """Refuses a loss that has no gradient, or none but zero.

  Args:
    loss: of the user's.
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
    return parameter_selection.batch_gradient(loss, params, selected, features)

  try:
    jaxpr = jax.make_jaxpr(gradient)(*loss_tracing.structs((params, features)))
  except user_code.ERRORS as error:
    reason = loss.describe(error)
    raise errors.InputError(
      f'{loss.name} cannot be differentiated ({reason}); '
      'write that part in jax.numpy, or give it a jax.custom_vjp with both '
      'rules'
    ) from error
  if _uses_its_inputs(jaxpr.jaxpr):
    return
  constant = jax.tree.leaves(jax.jit(gradient)(params, features))
  if not any(np.asarray(leaf).any() for leaf in constant):
    raise errors.InputError(
      f'the gradient of {loss.title} '
      'by the selected parameters is zero for every example: the loss does not '
      'depend on them, or only through jax.lax.stop_gradient, rounding, '
      'comparisons or integers'
    )


def check_independent(
  loss: loss_tracing.NamedLoss,
  params: types.Params,
  features: types.Features,
  *,
  ids: Sequence[str],
  together: np.ndarray,
) -> None:
  """Refuses a loss of an example that changes with the rest of its batch.

  Args:
    loss: of the user's; also one that gives [batch, tokens] losses.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays, a few real examples.
    ids: names of the examples in errors.
    together: [num_examples] or [num_examples, tokens] losses of the examples
      in one batch, which may have had others besides.

  Raises:
    errors.InputError: Names an example whose loss changes, or is not finite.
  """
  alone = np.concatenate(
    [evaluate(loss, params, example) for example in single_examples(features)]
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
  allowed = _tolerance(loss, params, features)
  if np.max(differences) > allowed * (1 + np.max(np.abs(alone))):
    place = _first_place(differences == np.max(differences))
    raise errors.InputError(
      f'the loss of example {_named(ids, place)} is {together[place]:.6g} in a '
      f'batch and {alone[place]:.6g} alone; {loss.title} must not '
      'mix the examples of a batch: evaluate batch normalisation with its '
      'running averages, and dropout deterministically'
    )


def evaluate(
  loss: loss_tracing.NamedLoss,
  params: types.Params,
  features: types.Features,
) -> np.ndarray:
  """[num_examples] float32 losses, or [num_examples, tokens].

  Large examples are taken two or more at a time, smaller ones all together.

  Raises:
    errors.InputError: It fails, such as a host callback in it.
  """
  count = len(jax.tree.leaves(features)[0])
  with user_code.user_errors(loss.name, loss.function):
    traced = loss.trace(params, features)
  largest = loss_tracing.largest_bytes(traced.jaxpr.jaxpr)
  num_batches = max(1, min(count // 2, -(-largest // _LARGEST_BYTES)))
  edges = np.linspace(0, count, num_batches + 1).astype(int)
  batches = [
    jax.tree.map(lambda leaf, some=slice(*edge): leaf[some], features)
    for edge in itertools.pairwise(edges.tolist())
  ]
  return np.concatenate([_evaluate(loss, params, x) for x in batches])


def _evaluate(
  loss: loss_tracing.NamedLoss,
  params: types.Params,
  features: types.Features,
) -> np.ndarray:
  with user_code.user_errors(loss.name, loss.function):
    traced = loss.trace(params, features)
    arrays = jax.tree.leaves((params, features))
    if len(traced.jaxpr.in_avals) != len(arrays) or _gives_away(traced.jaxpr):
      # A value of another trace came in, of which JAX tells when it compiles;
      # or arguments would be donated, which are not inside a program.
      return np.asarray(loss(params, features), np.float32)
    [losses] = jax_core.jaxpr_as_fun(traced.jaxpr)(*arrays)
    return np.asarray(losses, np.float32)


def tolerance(is_low_precision: bool) -> float:
  """Allowed difference of two ways of computing, on this machine's devices.

  Args:
    is_low_precision: whether any value is shorter than float32.
  """
  if jax.default_backend() == 'cpu' and not is_low_precision:
    return FLOAT32_TOLERANCE
  return LOW_PRECISION_TOLERANCE


def single_examples(features: types.Features) -> list[types.Features]:
  """Batches of one."""
  count = len(jax.tree.leaves(features)[0])
  return [
    jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i : i + 1], features)
    for i in range(count)
  ]


def _gives_away(jaxpr: jax_core.ClosedJaxpr) -> bool:
  return any(any(x.params.get('donated_invars', ())) for x in jaxpr.eqns)


def _uses_its_inputs(jaxpr: jax_core.Jaxpr) -> bool:
  """Whether any output is computed from any input."""
  needed = {x for x in jaxpr.outvars if not isinstance(x, jax_core.Literal)}
  for equation in reversed(jaxpr.eqns):
    if needed.intersection(equation.outvars):
      needed |= {
        x for x in equation.invars if not isinstance(x, jax_core.Literal)
      }
  return bool(needed.intersection(jaxpr.invars))


def _tolerance(loss, params, features) -> float:
  traced = loss.trace(params, features)
  return tolerance(loss_tracing.uses_low_precision(traced.jaxpr.jaxpr))


def _first_place(wanted: np.ndarray) -> tuple[int, ...]:
  """Where [num_examples] or [num_examples, tokens] is true first."""
  return tuple(np.argwhere(wanted)[0].tolist())


def _named(ids: Sequence[str], place: tuple[int, ...]) -> str:
  token = f' at token {place[1]}' if len(place) > 1 else ''
  return f'{ids[place[0]]}{token}'
