"""A task of an nnx module: its parameters and a pure loss, split once."""

from collections.abc import Callable
import functools
from typing import Any

from flax import nnx
import jax

from influence_core import types
from pipeline.tasks import task as task_lib

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
  """

  @functools.cache
  def structure_and_state() -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    module = load_module()
    module.eval()
    structure, state = nnx.split(module)
    params, constants = nnx.split_state(state, nnx.Param, ...)
    return structure, params, constants

  def load_parameters() -> types.Params:
    _, params, constants = structure_and_state()
    return {
      _PARAMS: nnx.to_pure_dict(params),
      _CONSTANTS: nnx.to_pure_dict(constants),
    }

  def per_example_loss(
    tree: types.Params, features: types.Features
  ) -> jax.Array:
    structure, params, constants = structure_and_state()
    module = nnx.merge(
      structure,
      _filled(params, tree[_PARAMS]),
      _filled(constants, tree[_CONSTANTS]),
    )
    return loss(module, features)

  return task_lib.Task(
    load_parameters=load_parameters,
    per_example_loss=per_example_loss,
    **{'parameter_paths': (f'^{_PARAMS}/',), **fields},
  )


def _filled(state: nnx.State, values: Any) -> nnx.State:
  """The state with other values, those of `to_pure_dict`."""
  filled = jax.tree.map(lambda leaf: leaf, state)
  nnx.replace_by_pure_dict(filled, values)
  return filled
