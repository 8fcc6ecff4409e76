"""Compiles the projection of a batch, and finds how large a batch may be."""

from collections.abc import Callable, Mapping
import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import (
  basis_packing,
  errors,
  factored_projection,
  gradient_collectors,
  multi_device,
  traced_loss,
  types,
)

# One micro-batch reads the whole basis, so it should be large enough to make
# that cheap; more gains nothing and costs memory.
_PREFERRED_MICRO_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Program:
  """A compiled projection.

  Attributes:
    micro_batch: examples of a call on each device.
    compiled: the executable.
    temporary_bytes: of a call on each device.
  """

  micro_batch: int
  compiled: Any
  temporary_bytes: int


def largest_program(
  compile_program: Callable[[int], Program],
  workspace_bytes: int,
  *,
  num_examples: int | None,
) -> Program:
  """The program with the largest useful micro-batch that fits.

  Args:
    compile_program: the program for a micro-batch.
    workspace_bytes: what its temporaries may take.
    num_examples: examples there will ever be for each device, if known.

  Raises:
    errors.InputError: Not even a single example fits.
  """
  micro_batch = _PREFERRED_MICRO_BATCH
  if num_examples is not None:
    micro_batch = max(1, min(micro_batch, num_examples))
  program = compile_program(micro_batch)
  while program.temporary_bytes > workspace_bytes:
    if micro_batch == 1:
      raise errors.InputError(
        f'one example needs {program.temporary_bytes:,} bytes of temporary '
        f'memory on each device and {workspace_bytes:,} are left beside '
        'parameters and basis; raise memory_budget, select fewer parameters, '
        'or wrap the layers of the model in jax.checkpoint'
      )
    # Temporaries grow with the batch, apart from a constant part.
    fitting = micro_batch * workspace_bytes / program.temporary_bytes
    fitting = 2 ** math.floor(math.log2(max(fitting, 1)))
    micro_batch = min(fitting, micro_batch // 2)
    program = compile_program(micro_batch)
  return program


def compile_program(
  traced: traced_loss.TracedLoss,
  packing: basis_packing.Packing,
  *,
  leaves: types.SelectedParameters,
  eigenvectors: Mapping[str, jax.ShapeDtypeStruct],
  features: types.Features,
  micro_batch: int,
) -> Program:
  """Compiles for all local devices.

  Args:
    traced: the loss.
    packing: how the basis is packed for this micro-batch.
    leaves: all parameters, [devices, *shape] by path.
    eigenvectors: shapes [projection_dim, *parameter shape] by path.
    features: pytree of [any, ...] arrays, for their shapes.
    micro_batch: examples of a call on each device.

  Returns:
    A program of (leaves, packed basis, [devices, micro_batch, ...] features).
  """
  devices = jax.local_device_count()
  projection_dim = next(iter(eigenvectors.values())).shape[0]
  evaluation = gradient_collectors.Evaluation(
    projection_dim,
    packing,
    multi_device.DEVICE_AXIS if packing.num_slices > 1 else None,
  )

  def project_on_device(leaves, packed, features):
    return project_batch(traced, leaves, packed, features, evaluation)

  packed = jax.eval_shape(
    lambda vectors: basis_packing.pack_basis(
      traced.plan, vectors, packing, lambda array: array, jnp
    ),
    eigenvectors,
  )
  inputs = (
    _with_lead(leaves, devices),
    _with_lead(packed, devices),
    _with_lead(features, devices, micro_batch),
  )
  lowered = multi_device.parallel_map(project_on_device).lower(*inputs)
  compiled = lowered.compile()
  stats = compiled.memory_analysis()
  return Program(micro_batch, compiled, stats.temp_size_in_bytes)


def project_batch(
  traced: traced_loss.TracedLoss,
  leaves: types.SelectedParameters,
  packed: Any,
  features: types.Features,
  evaluation: gradient_collectors.Evaluation,
) -> types.ProjectedExamples:
  """Projects [batch, ...] features on one device; traceable.

  Args:
    traced: the loss.
    leaves: all parameters by path.
    packed: the device's part of the packed basis.
    features: pytree of [batch, ...] arrays.
    evaluation: settings.

  Returns:
    [batch, (tokens,) groups, projection_dim] projections, norms without the
    last axis, and [batch, (tokens)] losses.
  """
  return jax.vmap(
    lambda example: _project_example(
      traced, leaves, packed, example, evaluation
    )
  )(features)


def _project_example(
  traced: traced_loss.TracedLoss,
  leaves: types.SelectedParameters,
  packed: Any,
  example: types.Features,
  evaluation: gradient_collectors.Evaluation,
) -> types.ProjectedExamples:
  """The projections of one example, or of each of its tokens."""

  def loss(probe):
    [value] = factored_projection.evaluate(
      traced.plan,
      traced.arguments(leaves, example),
      slots={},
      probe=probe,
      packed=packed,
      evaluation=evaluation,
    )
    return value

  value, pull_back = jax.vjp(loss, evaluation.zero_probe())
  if traced.num_tokens is None:
    [probe] = pull_back(jnp.ones_like(value))
  else:
    [probe] = jax.vmap(pull_back)(jnp.eye(traced.num_tokens))
  projections, squared_norms = probe
  return types.ProjectedExamples(projections, squared_norms, value)


def _with_lead(tree: Any, *lead: int) -> Any:
  """Shapes of a tree with its first axis exchanged for `lead`."""
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct((*lead, *leaf.shape[1:]), leaf.dtype),
    tree,
  )
