"""The basis of all layers' subspaces, with the report on them."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses

import numpy as np

from influence_core import choices
from influence_core.subspaces import kronecker, layers as layers_lib
from influence_core.subspaces.columns import LayerColumns


@dataclasses.dataclass(frozen=True)
class KroneckerReport:
  """How the subspaces were found, and what they hold.

  Attributes:
    layers: in the order of their columns.
    stacks: how they are made of parameters.
    left_out: share of the trace of the curvature that parameters without
      coordinates have, by path.
    curvature: whose second moments are taken.
    num_draws: gradients of each example, all of them where `is_exact`.
    is_exact: whether the curvature of an example is taken without chance.
    sample_size: examples that the curvature is the mean of.
    seconds: that it took.
    rejected: reason by id of the examples that were left out of the sample.
  """

  layers: tuple[LayerColumns, ...]
  stacks: tuple[layers_lib.LayerStack, ...]
  left_out: Mapping[str, float]
  curvature: choices.Curvature
  num_draws: int
  is_exact: bool
  sample_size: int
  seconds: float
  rejected: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def objections(self) -> list[str]:
    """Why the basis should not be used as it is; empty for a good one."""
    largest = max(layer.count for layer in self.layers)
    num_gradients = self.sample_size * self.num_draws
    if num_gradients < largest:
      return [
        f'the curvature of {largest} coordinates is that of {num_gradients} '
        'gradients; raise --sample_size or --num_draws'
      ]
    return []


@dataclasses.dataclass(frozen=True, repr=False)
class SubspaceBasis:
  """The subspaces of all layers.

  Attributes:
    eigenvalues: [projection_dim] float64, falling within each layer.
    directions: of the coordinates of the stacks of layers, by path.
    report: how they were found.
  """

  eigenvalues: np.ndarray
  directions: Mapping[str, kronecker.Directions]
  report: KroneckerReport

  @classmethod
  def from_arrays(
    cls,
    eigenvalues: np.ndarray,
    arrays: Mapping[str, np.ndarray],
    report: KroneckerReport,
  ) -> 'SubspaceBasis':
    """The inverse of `arrays`."""
    directions = {
      stack.path: kronecker.Directions(
        *(
          arrays[f'{stack.path}/{name}']
          for name in kronecker.Directions._fields
        )
      )
      for stack in report.stacks
    }
    return cls(eigenvalues, directions, report)

  @classmethod
  def random(
    cls, layers: layers_lib.Layers, coordinates_per_layer: int
  ) -> 'SubspaceBasis':
    """Random directions: memory and rate are those of any basis.

    Args:
      layers: of a loss.
      coordinates_per_layer: at most, for each.
    """
    generator = np.random.default_rng(0)
    directions, columns = {}, []
    for stack in layers.stacks:
      k, l = layers_lib.num_coordinates(stack, coordinates_per_layer)  # noqa: E741
      shapes = ((stack.num_rows, k), (stack.num_columns, l), (k * l, k * l))
      directions[stack.path] = kronecker.Directions(
        *(
          generator.standard_normal((stack.num_layers, *shape), np.float32)
          / np.float32(np.sqrt(shape[0]))
          for shape in shapes
        )
      )
      columns += [LayerColumns(name, k * l, 1.0, 0.0) for name in stack.names]
    report = KroneckerReport(
      tuple(columns),
      layers.stacks,
      dict.fromkeys(layers.left_out, 1.0),
      'empirical_fisher',
      num_draws=1,
      is_exact=True,
      sample_size=0,
      seconds=0.0,
    )
    return cls(np.ones(sum(x.count for x in columns)), directions, report)

  @property
  def projection_dim(self) -> int:
    return len(self.eigenvalues)

  def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
    """The directions, by path of the stack and name."""
    for path, directions in self.directions.items():
      for name, array in directions._asdict().items():
        yield f'{path}/{name}', array

  def __repr__(self) -> str:
    return (
      f'<SubspaceBasis of {self.projection_dim} coordinates in '
      f'{len(self.report.layers)} layers>'
    )


def join_columns(
  stacks: Sequence[layers_lib.LayerStack],
  fitted: Mapping[str, kronecker.FittedLayers],
) -> tuple[np.ndarray, tuple[LayerColumns, ...]]:
  """Eigenvalues of all columns of a projection, and what these stand for."""
  columns = tuple(
    LayerColumns(
      name,
      fitted[stack.path].eigenvalues.shape[1],
      float(fitted[stack.path].mean_curvatures[number]),
      float(fitted[stack.path].captured[number]),
    )
    for stack in stacks
    for number, name in enumerate(stack.names)
  )
  values = [fitted[stack.path].eigenvalues.ravel() for stack in stacks]
  return np.concatenate(values), columns
