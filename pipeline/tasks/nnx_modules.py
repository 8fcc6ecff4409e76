"""A task of an nnx module: its parameters and a pure loss, split once."""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax

from influence_core import types
from pipeline.tasks import module_fields, task as task_lib

_PARAMS, _CONSTANTS = 'params', 'constants'


def from_nnx(
  load_module: Callable[[], nnx.Module],
  loss: Callable[[Any, types.Features], jax.Array],
  **fields: Any,
) -> task_lib.Task:
  """The task of a module as nnx has them, whatever state it keeps.

      def load_module():
        module = Cnn(rngs=nnx.Rngs(0))
        nnx.update(module, load_arrays('ckpt', nnx.state(module)))
        return module

      task = from_nnx(load_module, loss, name='cnn', corpus=..., preprocess=...)

  The module is in evaluation mode (`Module.eval`): dropout passes everything,
  and batch norms take their running averages. Variables that are no `nnx.Param`
  are constants of the loss, though part of what an index is checked against.
  Influence is taken through the parameters, which have paths as
  params/conv/kernel.

  Args:
    load_module: makes the trained module; called once in a process.
    loss: (module, [batch, ...] features) -> [batch] float losses. What it
      changes in the module is forgotten.
    **fields: those of `Task`, besides `load_parameters` and `per_example_loss`.
      Where these have parameters, they have the module.
  """
  parts = _Parts(load_module)
  fields = module_fields.pure(fields, parts.pure)
  if retrain := fields.get('retrain'):
    fields['retrain'] = lambda ids, seed: _parameters(
      *_split(retrain(ids, seed))
    )
  return task_lib.Task(
    load_parameters=lambda: _parameters(*parts.split()),
    per_example_loss=parts.pure(loss),
    **{'parameter_paths': (f'^{_PARAMS}/',), **fields},
  )


class _Parts:
  """A module, split when it is first needed."""

  def __init__(self, load_module: Callable[[], nnx.Module]):
    self.split = functools.cache(lambda: _split(load_module()))

  def pure(self, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of the module as one of its parameters."""

    def of_parameters(tree: types.Params, features: types.Features) -> Any:
      structure, params, constants = self.split()
      module = nnx.merge(
        structure,
        _filled(params, tree[_PARAMS]),
        _filled(constants, tree[_CONSTANTS]),
      )
      return function(module, features)

    return of_parameters


def _split(module: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
  """Structure, parameters and all other state of a module in evaluation."""
  module.eval()
  structure, state = nnx.split(module)
  params, constants = nnx.split_state(state, nnx.Param, ...)
  return structure, params, constants


def _parameters(
  structure: nnx.GraphDef, params: nnx.State, constants: nnx.State
) -> types.Params:
  del structure
  return {
    _PARAMS: nnx.to_pure_dict(params),
    _CONSTANTS: nnx.to_pure_dict(constants),
  }


def _filled(state: nnx.State, values: Any) -> nnx.State:
  """The state with other values, those of `to_pure_dict`."""
  filled = jax.tree.map(lambda leaf: leaf, state)
  nnx.replace_by_pure_dict(filled, values)
  return filled
