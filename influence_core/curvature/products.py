"""Products of curvature matrices of a loss with a vector, for one microbatch.

Pure functions, linear in the vector; `operator` adds them up over a
sample.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import (
  choices,
  errors,
  parameter_selection,
  types,
  user_code,
)
from influence_core.devices import multi_device

Mode = Literal['forward over reverse', 'reverse over reverse']

# (vector, leaves, batch) -> the sum over the batch of the products with the
# vector, both float32 by path of the selected parameters; `leaves` are all
# parameters by path.
BatchProduct = Callable[
  [
    types.SelectedParameters,
    types.SelectedParameters,
    multi_device.DeviceBatch,
  ],
  types.SelectedParameters,
]


@dataclasses.dataclass(frozen=True)
class SplitLoss:
  """A loss as a function of model outputs, which Gauss-Newton needs.

  Attributes:
    outputs: (params, [batch, ...] features) -> [batch, ...] outputs.
    output_loss: (outputs, features) -> [batch] losses, convex in the outputs.
  """

  outputs: Callable[[types.Params, types.Features], Any]
  output_loss: Callable[[Any, types.Features], jax.Array]

  def per_example_loss(
    self, params: types.Params, features: types.Features
  ) -> jax.Array:
    """[batch] losses: both parts as one."""
    return self.output_loss(self.outputs(params, features), features)


def require_split_loss(split_loss: SplitLoss | None) -> SplitLoss:
  """Raises errors.InputError where there is none for 'gauss_newton'."""
  if split_loss is None:
    raise errors.InputError(
      "curvature 'gauss_newton' needs the loss in two parts; give the task "
      'a split_loss, or use another curvature'
    )
  return split_loss


def batch_product(
  curvature: choices.Curvature,
  per_example_loss: types.PerExampleLoss,
  split_loss: SplitLoss | None,
  params: types.Params,
  mode: Mode,
) -> BatchProduct:
  """The product for one microbatch.

  Args:
    curvature: which matrix, see `operator.CurvatureOptions`.
    per_example_loss: (params, [batch, ...] features) -> [batch] losses.
    split_loss: the same in two parts; for 'gauss_newton' only.
    params: pytree in whose place the leaves are put.
    mode: how the derivative along the vector is computed.

  Raises:
    errors.InputError: Gauss-Newton without a split loss.
  """
  if curvature == 'gauss_newton':
    require_split_loss(split_loss)
  product = {
    'hessian': _hessian,
    'gauss_newton': _gauss_newton,
    'empirical_fisher': _empirical_fisher,
  }[curvature]
  functions = _Functions(per_example_loss, split_loss, mode)

  def of_batch(vector, leaves, batch):
    def with_selected(selected):
      return parameter_selection.replace_parameters(
        params, {**leaves, **selected}
      )

    selected = {path: leaves[path] for path in vector}
    tangent = {
      path: entries.astype(selected[path].dtype)
      for path, entries in vector.items()
    }
    found = product(functions, with_selected, selected, tangent, batch)
    return jax.tree.map(lambda entries: entries.astype(jnp.float32), found)

  return of_batch


def possible_mode(
  product_in: Callable[[Mode], BatchProduct],
  selected: types.SelectedParameters,
  leaves: types.SelectedParameters,
  sample: types.Features,
) -> Mode:
  """Forward over reverse where the loss has a forward derivative.

  Args:
    product_in: the product in a mode.
    selected: parameters to differentiate by path.
    leaves: all parameters by path.
    sample: pytree of [num_examples, ...] arrays.

  Raises:
    errors.InputError: The product can be computed in neither mode, such as one
      with a loss that has no second derivative.
  """
  batch = multi_device.DeviceBatch(
    jax.tree.map(lambda leaf: leaf[:1], sample), np.ones(1, np.float32)
  )
  vector = {
    path: jax.ShapeDtypeStruct(leaf.shape, np.float32)
    for path, leaf in selected.items()
  }
  failures: list[BaseException] = []
  for mode in get_args(Mode):
    try:
      # Only lowering finds out whether every operation has a forward
      # derivative.
      jax.jit(product_in(mode)).lower(vector, leaves, batch)
      return mode
    except errors.InputError:
      raise
    except user_code.ERRORS as error:
      failures.append(error)
  reason = user_code.described(failures[0])
  raise errors.InputError(
    f'the loss has no product with this curvature ({reason}); '
    'correct it there, or choose another --curvature: empirical_fisher takes '
    'first derivatives alone'
  ) from failures[0]


@dataclasses.dataclass(frozen=True)
class _Functions:
  per_example_loss: types.PerExampleLoss
  split_loss: Any  # A SplitLoss where it is needed.
  mode: Mode

  def losses(self, params, batch: multi_device.DeviceBatch):
    """[batch] float32, zero for padding."""
    losses = self.per_example_loss(params, batch.features)
    return losses.astype(jnp.float32) * batch.mask

  def push_forward(self, function, primals, tangent):
    """The derivative of `function` along `tangent`."""
    if self.mode == 'forward over reverse':
      return jax.jvp(function, (primals,), (tangent,))[1]
    # The pull-back is linear; pulling back through it pushes forward.
    outputs, pull_back = jax.vjp(function, primals)
    zero = jax.tree.map(jnp.zeros_like, outputs)
    forward = jax.vjp(lambda cotangent: pull_back(cotangent)[0], zero)[1]
    return forward(tangent)[0]


_Selected = Mapping[str, Any]


def _hessian(functions: _Functions, with_selected, selected, tangent, batch):
  def loss_sum(selected: _Selected):
    return jnp.sum(functions.losses(with_selected(selected), batch))

  return functions.push_forward(jax.grad(loss_sum), selected, tangent)


def _gauss_newton(
  functions: _Functions, with_selected, selected, tangent, batch
):
  split_loss = functions.split_loss

  def outputs_of(selected: _Selected):
    return split_loss.outputs(with_selected(selected), batch.features)

  def loss_sum(outputs):
    losses = split_loss.output_loss(outputs, batch.features)
    return jnp.sum(losses.astype(jnp.float32) * batch.mask)

  outputs, pull_back = jax.vjp(outputs_of, selected)
  change = functions.push_forward(outputs_of, selected, tangent)
  curved = jax.jvp(jax.grad(loss_sum), (outputs,), (change,))[1]
  return pull_back(curved)[0]


def _empirical_fisher(
  functions: _Functions, with_selected, selected, tangent, batch
):
  def losses_of(selected: _Selected):
    return functions.losses(with_selected(selected), batch)

  _, pull_back = jax.vjp(losses_of, selected)
  return pull_back(functions.push_forward(losses_of, selected, tangent))[0]
