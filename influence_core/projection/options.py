"""How gradients are projected; it takes no time to import."""

import dataclasses

from influence_core import choices, errors


@dataclasses.dataclass(frozen=True)
class ProjectionOptions:
  """How to project; the defaults are right for most.

  Attributes:
    batch_size: number of examples in a call, over all local devices; default:
      as many as are useful and fit in memory.
    basis_dtype: dtype of the basis on the devices; bfloat16 halves memory and
      traffic, sums stay float32.
    basis_placement: replicated on every device, sharded over the local devices,
      or streamed from the host; auto is the first that fits.
    memory_budget_bytes: memory to use on each device, such as 12G; default:
      most of it.
    parameter_placement: parameters replicated on every device, or sharded over
      the local devices for models that do not fit on one; sharded is for bases
      of layers.
    parameter_groups: regular expressions of parameter paths; if any are given,
      results are split by group, see `parameter_selection.group_parameters`.
  """

  batch_size: int | None = None
  basis_dtype: choices.BasisDtype = 'float32'
  basis_placement: choices.BasisPlacement = 'auto'
  memory_budget_bytes: int | None = None
  parameter_placement: choices.ParameterPlacement = 'replicated'
  parameter_groups: tuple[str, ...] = ()

  def __post_init__(self):
    errors.check_choice('basis_dtype', self.basis_dtype, choices.BasisDtype)
    errors.check_choice(
      'basis_placement', self.basis_placement, choices.BasisPlacement
    )
    errors.check_choice(
      'parameter_placement',
      self.parameter_placement,
      choices.ParameterPlacement,
    )
