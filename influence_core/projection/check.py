"""Compares the factored projection with plain gradients on a few examples.

Run before any real work, on the hardware that will do it: whatever a model
contains, either both ways agree or the work does not start.
"""

import dataclasses
import re

import jax
import numpy as np

from influence_core import errors, loss_contract, types
from influence_core.devices import host_products, plain_gradient
from influence_core.projection import projector as gradient_projection


def check_projector(
  projector: gradient_projection.GradientProjector,
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  *,
  eigenvectors: types.SelectedParameters,
  features: types.Features,
) -> float | None:
  """Projects a few examples in both ways.

  Those whose gradient is not finite are left out: they are rejected when they
  are projected.

  Args:
    projector: what will do the work.
    per_example_loss: as given to the projector.
    params: pytree of arrays.
    eigenvectors: [projection_dim, *parameter shape] by parameter path.
    features: pytree of [num_examples, ...] arrays, a few real examples.

  Returns:
    The largest difference, relative to |gradient| |eigenvector|; None where no
    example has a finite gradient.

  Raises:
    errors.InputError: The two disagree; names the worst parameter.
  """
  tolerance = _tolerance(projector)
  plain = _plain_projections(per_example_loss, params, eigenvectors, features)
  if not plain.places:
    return None
  features = jax.tree.map(lambda leaf: leaf[plain.places], features)
  projected = projector.project(features)
  projections = projected.projections
  if projector.group_names:
    projections = projections.sum(axis=-2)
  if projector.traced.num_tokens is not None:
    projections = projections.sum(axis=1)
  error = np.max(np.abs(projections - plain.projections) / plain.scales)
  if not error <= tolerance:
    path, path_error = _worst_path(
      projector, per_example_loss, params, eigenvectors, features, plain
    )
    raise errors.InputError(
      f'projections differ from those by plain gradients by {error:.1e} of '
      f'|gradient| |eigenvector|, expected at most {tolerance:.0e}; the worst '
      f'parameter is {path} ({path_error:.1e}): leave it out by '
      'parameter_paths and report the model as a bug'
    )
  return float(error)


def _tolerance(projector: gradient_projection.GradientProjector) -> float:
  return loss_contract.tolerance(
    projector.options.basis_dtype != 'float32'
    or projector.traced.uses_low_precision
  )


@dataclasses.dataclass(frozen=True)
class _Plain:
  """Projections by plain gradients, of the examples that have finite ones.

  Attributes:
    places: of these examples among all.
    by_path: [num_examples, projection_dim] float32 by parameter path.
    scales: [num_examples, projection_dim], |gradient| |eigenvector|.
  """

  places: list[int]
  by_path: dict[str, np.ndarray]
  scales: np.ndarray

  @property
  def projections(self) -> np.ndarray:
    return np.sum(list(self.by_path.values()), axis=0)


def _plain_projections(
  per_example_loss, params, eigenvectors, features
) -> _Plain:
  """One example at a time, so that one gradient is held."""
  gradient = plain_gradient.compile_gradient(
    per_example_loss, params, eigenvectors
  )
  places = []
  rows: dict[str, list[np.ndarray]] = {path: [] for path in eigenvectors}
  squared_norms = []
  for place, example in enumerate(loss_contract.single_examples(features)):
    flat = {
      path: np.asarray(leaf, np.float32).reshape(-1)
      for path, leaf in gradient(example).items()
    }
    if not all(np.isfinite(part).all() for part in flat.values()):
      continue
    places.append(place)
    for path, part in flat.items():
      vectors = np.asarray(eigenvectors[path], np.float32)
      vectors = vectors.reshape(len(vectors), -1)
      rows[path].append(host_products.matmul(vectors, part))
    squared_norms.append(sum(float(part @ part) for part in flat.values()))
  lengths = sum(
    np.square(np.asarray(vectors, np.float32).reshape(len(vectors), -1)).sum(1)
    for vectors in eigenvectors.values()
  )
  scales = np.sqrt(np.outer(squared_norms, lengths))
  tiny = np.finfo(np.float32).tiny
  return _Plain(
    places,
    {path: np.array(values, np.float32) for path, values in rows.items()},
    np.maximum(scales, tiny),
  )


def _worst_path(
  projector, per_example_loss, params, eigenvectors, features, plain: _Plain
) -> tuple[str, float]:
  """The parameter whose share of the projections differs most."""
  paths = sorted(eigenvectors)
  by_path = gradient_projection.GradientProjector(
    per_example_loss,
    params,
    eigenvectors=eigenvectors,
    features=features,
    options=dataclasses.replace(
      projector.options,
      batch_size=None,
      parameter_groups=tuple(f'^{re.escape(path)}$' for path in paths),
    ),
    num_examples=len(plain.scales),
  ).project(features)
  projections = by_path.projections
  if len(paths) == 1:
    projections = projections[..., None, :]
  if projector.traced.num_tokens is not None:
    projections = projections.sum(axis=1)
  differences = {
    path: float(
      np.max(np.abs(projections[:, i] - plain.by_path[path]) / plain.scales)
    )
    for i, path in enumerate(paths)
  }
  return max(differences.items(), key=lambda item: item[1])
