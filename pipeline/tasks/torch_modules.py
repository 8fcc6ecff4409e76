"""A task of a PyTorch module: its parameters, and its operations in JAX.

torchax runs the operations of a module on JAX arrays, so that JAX traces and
differentiates them like any others. What it has no rule for ends with its name
before any work starts: operations in C++ or Triton, and control flow that
depends on values.
"""

from collections.abc import Callable
import functools
import types as python_types
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types
from pipeline.tasks import module_fields, task as task_lib

if TYPE_CHECKING:
  import torch

_PARAMS, _CONSTANTS = 'params', 'constants'


def from_torch(
  load_module: Callable[[], 'torch.nn.Module'],
  loss: Callable[[Callable[..., Any], types.Features], jax.Array],
  **fields: Any,
) -> task_lib.Task:
  """The task of a module of PyTorch, as it is.

      def load_module():
        module = Cnn()
        module.load_state_dict(torch.load('cnn.pt', weights_only=True))
        return module

      def loss(module, features):
        logits = module(features['image'])
        return optax.softmax_cross_entropy_with_integer_labels(
          logits, features['label']
        )

      task = from_torch(load_module, loss, name='cnn', ...)

  The module is in evaluation mode (`Module.eval`): dropout passes everything,
  and batch norms take their running averages. Buffers are constants of the
  loss, though part of what an index is checked against. Influence is taken
  through the parameters, which have paths as params/conv/weight; one that is
  used under two names is one parameter, under the first.

  Args:
    load_module: makes the trained module; called once in a process.
    loss: (module, [batch, ...] features) -> [batch] float losses, in JAX. The
      module is called as in PyTorch, and takes and gives JAX arrays.
    **fields: those of `Task`, besides `load_parameters` and `per_example_loss`.
      Where these have parameters, they have the module.

  Raises:
    errors.InputError: torch or torchax is not installed.
  """
  torchax = _torchax()

  @functools.cache
  def extracted() -> tuple[types.Params, Callable[..., Any]]:
    module = load_module().eval()
    states, forward = torchax.extract_jax(module)
    names = {name for name, _ in module.named_parameters()}
    tree: dict[str, Any] = {_PARAMS: {}, _CONSTANTS: {}}
    for name, value in states.items():
      kind = _PARAMS if name in names else _CONSTANTS
      _put(tree[kind], name.split('.'), np.asarray(value))
    return tree, forward

  def pure(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the module as one of its parameters."""

    def of_parameters(tree: types.Params, features: types.Features) -> Any:
      _, forward = extracted()
      states = {**_flat(tree[_PARAMS]), **_flat(tree[_CONSTANTS])}

      def module(*arguments: Any, **named: Any) -> Any:
        return forward(*jax.tree.map(_as_jax, (states, arguments, named)))

      return function(module, features)

    return of_parameters

  return task_lib.Task(
    load_parameters=lambda: extracted()[0],
    per_example_loss=pure(loss),
    **{
      'parameter_paths': (f'^{_PARAMS}/',),
      **module_fields.pure(fields, pure),
    },
  )


def _torchax() -> python_types.ModuleType:
  try:
    import torchax

    return torchax
  except ImportError as error:
    raise errors.InputError(
      f'from_torch needs torch and torchax ({error}); install '
      "'influence-pipeline[torch]'"
    ) from error


def _as_jax(leaf: Any) -> Any:
  """What PyTorch does not know, as what torchax gives it to."""
  return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf


def _put(tree: dict[str, Any], names: list[str], value: np.ndarray) -> None:
  *modules, last = names
  for name in modules:
    tree = tree.setdefault(name, {})
  tree[last] = value


def _flat(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  """Arrays by the names that PyTorch has for them."""
  found: dict[str, Any] = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      found |= _flat(value, f'{prefix}{name}.')
    else:
      found[f'{prefix}{name}'] = value
  return found
