"""Programs of the projection, one for each shape of features.

The basis is packed once: for the features that come first, which should be the
largest, and for as many of them as fit. All other programs take it as it is.
"""

from collections.abc import Callable, Mapping
import dataclasses
import threading
from typing import Any

import jax

from influence_core import errors, types
from influence_core.devices import program as device_program
from influence_core.projection import (
  packing as basis_packing,
  program as projection_program,
  traced_loss,
)

# One micro-batch reads the whole basis, so it should be large enough to make
# that cheap; more gains nothing and costs memory.
_PREFERRED_MICRO_BATCH = 128


@dataclasses.dataclass(frozen=True)
class Placement:
  """What programs work with.

  Attributes:
    leaves: all parameters by path, placed.
    vectors: shapes [projection_dim of a block, *parameter shape] by path.
    workspace_bytes: what temporaries may take on each device.
  """

  leaves: types.SelectedParameters
  vectors: Mapping[str, jax.ShapeDtypeStruct]
  workspace_bytes: int


class ShapePrograms:
  """Compiles when a shape first comes; threads wait for one another.

  Attributes:
    traced: the loss of the first features and its plan.
    program: the projection of the first features.
    packing: how the basis is to be packed for all programs.
  """

  def __init__(
    self,
    trace: Callable[[types.Features], traced_loss.TracedLoss],
    placement: Placement,
    packing: basis_packing.Packing,
    *,
    features: types.Features,
    batch_size: int | None,
    num_examples: int | None,
  ):
    """Compiles for the first shape.

    Args:
      trace: the loss of features, for their shapes.
      placement: what programs work with.
      packing: settings, for any number of examples.
      features: pytree of [any, ...] arrays or shapes.
      batch_size: examples of a call over all local devices; None for the most
        that is useful and fits.
      num_examples: most examples of a call, if known.

    Raises:
      errors.InputError: The loss does not work on a single example, or memory
        does not suffice.
    """
    self._trace = trace
    self._placement = placement
    self._batch_size = batch_size
    self._num_examples = num_examples
    self.traced = trace(features)
    self.packing = packing
    self.program = self._compile(self.traced, features, packing.for_examples)
    self.packing = packing.for_examples(self.program.micro_batch)
    self._programs = {_shapes(features): self.program}
    self._lock = threading.Lock()

  def program_for(self, features: types.Features) -> device_program.Program:
    """The projection of [num_examples, ...] features.

    Raises:
      errors.InputError: It cannot be compiled, or not for the packed basis.
    """
    shapes = _shapes(features)
    with self._lock:
      if shapes not in self._programs:
        traced = self._trace(features)
        self._check_packed_alike(traced, shapes)
        self._programs[shapes] = self._compile(
          traced, features, lambda micro_batch: self.packing
        )
      return self._programs[shapes]

  def _compile(
    self,
    traced: traced_loss.TracedLoss,
    features: types.Features,
    packing_for: Callable[[int], basis_packing.Packing],
  ) -> device_program.Program:
    """For the given batch size, or for the largest useful one."""
    devices = jax.local_device_count()
    workspace, count = self._placement.workspace_bytes, self._num_examples

    def compile_program(micro_batch: int) -> device_program.Program:
      return projection_program.compile_program(
        traced,
        packing_for(micro_batch),
        leaves=self._placement.leaves,
        eigenvectors=self._placement.vectors,
        features=features,
        micro_batch=micro_batch,
      )

    if self._batch_size is None:
      return device_program.largest_program(
        compile_program,
        workspace,
        preferred=_PREFERRED_MICRO_BATCH,
        num_examples=count and -(-count // devices),
      )
    program = compile_program(self._batch_size // devices)
    if program.temporary_bytes > workspace:
      raise errors.InputError(
        f'batch_size {self._batch_size} needs {program.temporary_bytes:,} '
        f'bytes of temporary memory on each device, {workspace:,} are left '
        'beside parameters and basis; give a smaller one or none'
      )
    return program

  def _check_packed_alike(
    self, traced: traced_loss.TracedLoss, shapes: tuple[tuple[int, ...], ...]
  ) -> None:
    if self._arrangement(traced) != self._arrangement(self.traced):
      raise errors.InputError(
        f'the loss of features of shapes {shapes} uses its parameters in '
        'another way than that of the first ones (a sequence of length 1 '
        'does); pad such examples to the next bucket'
      )

  def _arrangement(self, traced: traced_loss.TracedLoss) -> Any:
    """Of the packed basis."""
    dim = next(iter(self._placement.vectors.values())).shape[0]
    return basis_packing.arrangement(traced.plan, self.packing, dim)


def _shapes(features: types.Features) -> tuple[tuple[int, ...], ...]:
  return tuple(tuple(leaf.shape[1:]) for leaf in jax.tree.leaves(features))
