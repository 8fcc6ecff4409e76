"""Coordinates of the gradients of any number of examples, on all devices."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import parameter_selection, types
from influence_core.devices import (
  example_maps,
  memory as device_memory,
  program as device_program,
)
from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  factored_gradients,
  kronecker,
  layers as layers_lib,
)

# More examples at a time gain nothing: the subspaces are small.
_PREFERRED_MICRO_BATCH = 64
_DEFAULT_OPTIONS = ProjectionOptions()


class SubspaceProjector:
  """Projections on the subspaces of all layers, which stay placed.

  Attributes:
    options: as given; the placement of a basis has no meaning here.
    program: the compiled projection of the features it was made with.
    resident_bytes: of parameters and subspaces on each device.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    stacks: Sequence[layers_lib.LayerStack],
    directions: Mapping[str, kronecker.Directions],
    selected: types.SelectedParameters,
    features: types.Features,
    options: ProjectionOptions = _DEFAULT_OPTIONS,
    num_examples: int | None = None,
  ):
    """Traces and compiles.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      stacks: layers, in the order of the columns of a projection.
      directions: of their coordinates, by path.
      selected: parameters that gradient norms are taken over, by path.
      features: pytree of [any, ...] arrays, for their shapes and dtypes; of
        the largest examples, where they have several shapes.
      options: see there.
      num_examples: most examples of a call of `project`, if known.

    Raises:
      errors.InputError: The loss does not work on a single example, the batch
        size does not suit the devices, or memory does not suffice.
    """
    gradient_projection.check_batch_size(options.batch_size)
    self.options = options
    self._loss = per_example_loss
    self._params = params
    self._selected = selected
    self._stacks = stacks
    self._num_examples = num_examples
    self._map = example_maps.choose(options.parameter_placement)
    self._placed = (
      self._map.put_parameters(parameter_selection.all_parameters(params)),
      self._map.put(dict(directions)),
    )
    self.resident_bytes = self._map.resident_bytes(self._placed)
    budget = options.memory_budget_bytes or device_memory.default_budget_bytes()
    self._workspace_bytes = budget - self.resident_bytes
    self._programs = device_program.ByShape(self._choose)
    self.program = self._programs(features)

  @property
  def batch_size(self) -> int:
    """Examples of a call of the program over all local devices."""
    return self.program.micro_batch * jax.local_device_count()

  @property
  def peak_bytes(self) -> int:
    """Memory on each device while a batch is projected."""
    return self.resident_bytes + self.program.temporary_bytes

  @property
  def call_size(self) -> int:
    """Examples to give `project` at a time."""
    return self.batch_size

  def project(self, features: types.Features) -> types.ProjectedExamples:
    """Projects [num_examples, ...] features; results are numpy arrays.

    Each shape takes a program of its own, compiled when it first comes.
    """
    program = self._programs(features)
    parts = []
    for batch, count in self._map.batches(features, program.micro_batch):
      found = program.compiled(*self._placed, batch.features)
      parts.append([leaf[:count] for leaf in self._map.examples(found)])
    return types.ProjectedExamples(
      *(np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    )

  def _choose(self, features: types.Features) -> device_program.Program:
    gradients = factored_gradients.FactoredGradients(
      self._loss, self._params, selected=self._selected, features=features
    )

    def compile_program(micro_batch: int) -> device_program.Program:
      return self._compile(gradients, features, micro_batch)

    return device_program.choose_program(
      compile_program,
      self._workspace_bytes,
      batch_size=self.options.batch_size,
      preferred=_PREFERRED_MICRO_BATCH,
      num_examples=self._num_examples,
      useful_bytes=device_program.useful_bytes(self.resident_bytes),
    )

  def _compile(
    self,
    gradients: factored_gradients.FactoredGradients,
    features: types.Features,
    micro_batch: int,
  ) -> device_program.Program:
    def of_batch(leaves, subspaces, features):
      return project_batch(gradients, self._stacks, leaves, subspaces, features)

    return self._map.compile_each(
      of_batch, *self._placed, like=features, micro_batch=micro_batch
    )


def project_batch(
  gradients: factored_gradients.FactoredGradients,
  stacks: Sequence[layers_lib.LayerStack],
  leaves: types.SelectedParameters,
  subspaces: Mapping[str, kronecker.Directions],
  features: types.Features,
) -> types.ProjectedExamples:
  """Projects [batch, ...] features on one device; traceable.

  Args:
    gradients: of the loss.
    stacks: layers, in the order of the columns of a projection.
    leaves: all parameters by path.
    subspaces: directions by path.
    features: pytree of [batch, ...] arrays.

  Returns:
    [batch, (tokens,) projection_dim] projections, norms without the last axis,
    and [batch, (tokens)] losses.
  """
  sides = {
    path: {'rows': own.rows, 'columns': own.columns}
    for path, own in subspaces.items()
  }
  losses, found = gradients.of_each(
    leaves, features, kronecker.norms_and_coordinates(stacks), sides
  )
  norms = [own['norm'].sum(axis=-1) for own in found.values() if own]
  columns = [
    _turned(found[stack.path]['coordinates'], subspaces[stack.path].rotation)
    for stack in stacks
  ]
  return types.ProjectedExamples(
    jnp.concatenate(columns, axis=-1),
    jnp.sum(jnp.stack(norms), axis=0),
    losses,
  )


def _turned(inside: jax.Array, rotation: types.Array) -> jax.Array:
  """[..., matrix, n] turned to eigenvectors and joined, [..., matrix * n]."""
  turned = jnp.einsum(
    '...bi,bin->...bn', inside, rotation, precision=jax.lax.Precision.HIGHEST
  )
  return turned.reshape(*turned.shape[:-2], -1)
