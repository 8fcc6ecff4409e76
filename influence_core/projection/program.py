"""Compiles the projection of a batch for all local devices."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from influence_core import types
from influence_core.devices import multi_device, program as device_program
from influence_core.projection import (
  basis_collectors,
  factored_projection,
  packing as basis_packing,
  traced_loss,
)


def compile_program(
  traced: traced_loss.TracedLoss,
  packing: basis_packing.Packing,
  *,
  leaves: types.SelectedParameters,
  eigenvectors: Mapping[str, jax.ShapeDtypeStruct],
  features: types.Features,
  micro_batch: int,
) -> device_program.Program:
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
  evaluation = basis_collectors.BasisCollectors(
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
    device_program.with_lead(leaves, devices),
    device_program.with_lead(packed, devices),
    device_program.with_lead(features, devices, micro_batch),
  )
  lowered = multi_device.parallel_map(project_on_device, is_local=True).lower(
    *inputs
  )
  return device_program.compile_lowered(lowered, micro_batch)


def project_batch(
  traced: traced_loss.TracedLoss,
  leaves: types.SelectedParameters,
  packed: Any,
  features: types.Features,
  evaluation: basis_collectors.BasisCollectors,
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
  evaluation: basis_collectors.BasisCollectors,
) -> types.ProjectedExamples:
  """The projections of one example, or of each of its tokens."""

  def loss(probe):
    [value] = factored_projection.evaluate(
      traced.plan,
      traced.arguments(leaves, example),
      slots={},
      probe=probe,
      given=packed,
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
