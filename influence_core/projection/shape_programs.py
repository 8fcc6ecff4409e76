"""Programs of the projection, one for each shape of features.

The basis is packed once: for the features that come first, which should be the
largest, and for as many of them as fit. All other programs take it as it is.
"""

from collections.abc import Callable, Mapping
import dataclasses
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
    self._others = device_program.ByShape(self._compile_another)
    self._first_shapes = device_program.example_shapes(features)

  def program_for(self, features: types.Features) -> device_program.Program:
    """The projection of [num_examples, ...] features.

    Raises:
      errors.InputError: It cannot be compiled, or not for the packed basis.
    """
    if device_program.example_shapes(features) == self._first_shapes:
      return self.program
    return self._others(features)

  def _compile_another(
    self, features: types.Features
  ) -> device_program.Program:
    """For the basis as it is packed."""
    traced = self._trace(features)
    self._check_packed_alike(traced, features)
    return self._compile(traced, features, lambda micro_batch: self.packing)

  def _compile(
    self,
    traced: traced_loss.TracedLoss,
    features: types.Features,
    packing_for: Callable[[int], basis_packing.Packing],
  ) -> device_program.Program:
    """For the given batch size, or for the largest useful one."""

    def compile_program(micro_batch: int) -> device_program.Program:
      return projection_program.compile_program(
        traced,
        packing_for(micro_batch),
        leaves=self._placement.leaves,
        eigenvectors=self._placement.vectors,
        features=features,
        micro_batch=micro_batch,
      )

    return device_program.choose_program(
      compile_program,
      self._placement.workspace_bytes,
      batch_size=self._batch_size,
      preferred=_PREFERRED_MICRO_BATCH,
      num_examples=self._num_examples,
    )

  def _check_packed_alike(
    self, traced: traced_loss.TracedLoss, features: types.Features
  ) -> None:
    if self._arrangement(traced) != self._arrangement(self.traced):
      shapes = device_program.example_shapes(features)
      raise errors.InputError(
        f'the loss of features of shapes {shapes} uses its parameters in '
        'another way than that of the first ones (a sequence of length 1 '
        'does); pad such examples to the next bucket'
      )

  def _arrangement(self, traced: traced_loss.TracedLoss) -> Any:
    """Of the packed basis."""
    dim = next(iter(self._placement.vectors.values())).shape[0]
    return basis_packing.arrangement(traced.plan, self.packing, dim)
