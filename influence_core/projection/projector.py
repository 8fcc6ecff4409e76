"""Projects the gradients of any number of examples on all local devices.

The entry point of the projection kernel: traces the loss, plans it, places the
basis, compiles a program for each shape and feeds it batches.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.devices import (
  memory as device_memory,
  multi_device,
  program as device_program,
)
from influence_core.projection import (
  packing as basis_packing,
  shape_programs,
  traced_loss,
)
from influence_core.projection.options import ProjectionOptions

# Examples for which it is worth to stream the basis from the host.
_STREAMED_CALL_SIZE = 4096


_DEFAULT_OPTIONS = ProjectionOptions()


class GradientProjector:
  """Projections on one basis; parameters and basis stay placed.

  Attributes:
    options: as given.
    memory: where parameters and basis are.
    leaves: all parameters by path, placed.
    basis_blocks: the packed basis by blocks of eigenvectors, placed or, if it
      is streamed, on the host.
    projection_dim: number of eigenvectors.
    group_names: names of the parameter groups, if results are split by group.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    eigenvectors: types.SelectedParameters,
    features: types.Features,
    options: ProjectionOptions = _DEFAULT_OPTIONS,
    num_examples: int | None = None,
  ):
    """Traces, plans, places and compiles.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses. With
        [batch, tokens] losses, every token's loss is projected by itself.
      params: pytree of arrays.
      eigenvectors: [projection_dim, *parameter shape] by parameter path; its
        keys are the parameters that gradients are taken for.
      features: pytree of [any, ...] arrays, for their shapes and dtypes; of
        the largest examples, where they have several shapes.
      options: see there.
      num_examples: most examples of a call of `project`, if known, so that
        batches are not mostly padding.

    Raises:
      errors.InputError: The loss does not work on a single example, basis and
        parameters have different shapes, the batch size does not suit the
        devices, or memory does not suffice.
    """
    self.options = options
    if options.parameter_placement == 'sharded':
      raise errors.InputError(
        'parameter_placement is sharded, but the basis is one of vectors as '
        'large as the parameters; fit one of --method kronecker, or leave the '
        'placement out'
      )
    leaves = parameter_selection.all_parameters(params)
    _check_shapes(leaves, eigenvectors)
    group_of, self.group_names = parameter_selection.group_parameters(
      eigenvectors, options.parameter_groups
    )
    dtype = jnp.dtype(options.basis_dtype)
    self.projection_dim = parameter_selection.num_vectors(eigenvectors)
    self.memory = device_memory.plan_memory(
      parameter_bytes=sum(
        leaf.size * leaf.dtype.itemsize for leaf in leaves.values()
      ),
      vector_bytes=dtype.itemsize
      * sum(leaves[path].size for path in eigenvectors),
      projection_dim=self.projection_dim,
      budget_bytes=options.memory_budget_bytes,
      placement=options.basis_placement,
    )
    self._block_dim = -(-self.projection_dim // self.memory.num_blocks)
    devices = jax.local_device_count()
    num_slices = 1 if self.memory.placement == 'replicated' else devices
    packing = basis_packing.Packing(
      basis_packing.Blocking(
        1, self.memory.block_bytes, self.memory.apply_block_bytes
      ),
      dtype,
      group_of,
      num_groups=max(len(self.group_names), 1),
      num_slices=num_slices,
    )
    self.leaves = multi_device.replicate(leaves)
    check_batch_size(options.batch_size)
    self._programs = shape_programs.ShapePrograms(
      lambda features: traced_loss.trace_loss(
        per_example_loss, params, tuple(eigenvectors), features
      ),
      shape_programs.Placement(
        self.leaves,
        self._block_shapes(eigenvectors),
        self.memory.workspace_bytes,
      ),
      packing,
      features=features,
      batch_size=options.batch_size,
      num_examples=num_examples,
    )
    self.basis_blocks = self._pack(eigenvectors)

  @property
  def traced(self) -> traced_loss.TracedLoss:
    """The loss, and how it is projected."""
    return self._programs.traced

  @property
  def program(self) -> device_program.Program:
    """The compiled projection of the features it was made with."""
    return self._programs.program

  @property
  def packing(self) -> basis_packing.Packing:
    """How the basis is packed."""
    return self._programs.packing

  @property
  def batch_size(self) -> int:
    """Examples of a call of the program over all local devices."""
    return self.program.micro_batch * jax.local_device_count()

  @property
  def call_size(self) -> int:
    """Examples to give `project` at a time.

    A basis streamed from the host is read once per call.
    """
    if self.memory.num_blocks == 1:
      return self.batch_size
    return self.batch_size * max(1, _STREAMED_CALL_SIZE // self.batch_size)

  @property
  def peak_bytes(self) -> int:
    """Memory on each device while a batch is projected."""
    resident = self.memory.parameter_bytes + self.memory.basis_bytes
    return resident + self.program.temporary_bytes

  def project(self, features: types.Features) -> types.ProjectedExamples:
    """Projects [num_examples, ...] features; results are numpy arrays.

    Each shape takes a program of its own, compiled when it first comes.
    A loss per token adds a tokens axis to every result, after the first.
    Parameter groups add a groups axis, the last one of norms and the last but
    one of projections.
    """
    parts: list[types.ProjectedExamples] = []
    for number, block in enumerate(self.basis_blocks):
      if self.memory.placement == 'streamed':
        block = multi_device.place(block)
      start = number * self._block_dim
      keep = min(self._block_dim, self.projection_dim - start)
      batches = [
        result._replace(projections=result.projections[..., :keep])
        for result in self._project_batches(block, features)
      ]
      parts.append(
        types.ProjectedExamples(
          *map(np.concatenate, zip(*batches, strict=True))
        )
      )
    projections = np.concatenate([part.projections for part in parts], axis=-1)
    squared_norms = parts[0].squared_gradient_norms
    if not self.group_names:
      projections, squared_norms = projections[..., 0, :], squared_norms[..., 0]
    return types.ProjectedExamples(projections, squared_norms, parts[0].losses)

  def _project_batches(
    self, packed, features: types.Features
  ) -> Iterator[types.ProjectedExamples]:
    program = self._programs.program_for(features)
    size = program.micro_batch * jax.local_device_count()
    for batch in multi_device.padded_batches(features, size):
      result = program.compiled(self.leaves, packed, batch.features)
      yield types.ProjectedExamples(
        *(
          np.asarray(leaf).reshape(-1, *leaf.shape[2:])[: batch.num_valid]
          for leaf in result
        )
      )

  def _block_shapes(
    self, eigenvectors: types.SelectedParameters
  ) -> dict[str, jax.ShapeDtypeStruct]:
    return {
      path: jax.ShapeDtypeStruct(
        (self._block_dim, *vectors.shape[1:]), vectors.dtype
      )
      for path, vectors in eigenvectors.items()
    }

  def _pack(self, eigenvectors) -> list[Any]:
    """The basis by blocks of eigenvectors, on the devices or streamed."""
    devices = jax.local_device_count()

    def place(array):
      every = np.broadcast_to(array, (devices, *array.shape[1:]))
      is_streamed = self.memory.placement == 'streamed'
      return every if is_streamed else multi_device.place(every)

    blocks = []
    for number in range(self.memory.num_blocks):
      start = number * self._block_dim
      block = {
        path: _filled(
          np.asarray(vectors[start:][: self._block_dim]), self._block_dim
        )
        for path, vectors in eigenvectors.items()
      }
      blocks.append(
        basis_packing.pack_basis(
          self.traced.plan, block, self.packing, place, np
        )
      )
    return blocks


def check_batch_size(batch_size: int | None) -> None:
  """Raises `errors.InputError` unless it splits evenly over the devices."""
  if batch_size is None:
    return
  devices = jax.local_device_count()
  if batch_size < 1 or batch_size % devices:
    raise errors.InputError(
      f'batch_size is {batch_size}, expected a positive multiple of the number '
      f'of local devices, {devices}'
    )


def _filled(vectors: np.ndarray, size: int) -> np.ndarray:
  """[size, ...]: filled up with zeros."""
  missing = size - len(vectors)
  widths = [(0, missing)] + [(0, 0)] * (vectors.ndim - 1)
  return np.pad(vectors, widths) if missing else vectors


def _check_shapes(
  parameters: types.SelectedParameters, eigenvectors: types.SelectedParameters
) -> None:
  if not eigenvectors:
    raise errors.InputError(
      'the basis has no parameter; select at least one and fit a basis'
    )
  for path, vectors in eigenvectors.items():
    expected = parameters[path].shape if path in parameters else 'absent'
    if vectors.shape[1:] != expected:
      raise errors.InputError(
        f'the basis has {path} with shape {vectors.shape[1:]}, the model has '
        f'{expected}; fit a basis for this model'
      )
