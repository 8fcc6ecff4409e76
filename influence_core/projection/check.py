"""Compares the factored projection with plain gradients on a few examples.

Run before any real work, on the hardware that will do it: whatever a model
contains, either both ways agree or the work does not start.
"""

from collections.abc import Sequence
import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.devices import host_products
from influence_core.projection import projector as gradient_projection

# Allowed difference of a projection, relative to |gradient| |eigenvector|.
# Sums of many float32 terms in two orders differ by less than 1e-5.
_FLOAT32_TOLERANCE = 1e-4
# bfloat16 rounds by 4e-3, the default float32 products of accelerators by up
# to that; rounding of intermediate values accumulates over layers.
_LOW_PRECISION_TOLERANCE = 3e-2


def check_projector(
  projector: gradient_projection.GradientProjector,
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  *,
  eigenvectors: types.SelectedParameters,
  features: types.Features,
  ids: Sequence[str] | None = None,
) -> float:
  """Projects a few examples in both ways.

  Args:
    projector: what will do the work.
    per_example_loss: as given to the projector.
    params: pytree of arrays.
    eigenvectors: [projection_dim, *parameter shape] by parameter path.
    features: pytree of [num_examples, ...] arrays, a few real examples.
    ids: names of the examples in errors; None for their numbers.

  Returns:
    The largest difference, relative to |gradient| |eigenvector|.

  Raises:
    errors.InputError: The two disagree (names the worst parameter), the loss
      of an example depends on the rest of its batch, or a loss or gradient is
      not finite.
  """
  tolerance = _tolerance(projector)
  if ids is None:
    ids = list(map(str, range(len(jax.tree.leaves(features)[0]))))
  _check_independence(per_example_loss, params, features, ids, tolerance)
  plain = _plain_projections(
    per_example_loss, params, eigenvectors, features, ids
  )
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
  is_exact = (
    jax.default_backend() == 'cpu'
    and projector.options.basis_dtype == 'float32'
    and not projector.traced.uses_low_precision
  )
  return _FLOAT32_TOLERANCE if is_exact else _LOW_PRECISION_TOLERANCE


def _check_independence(
  per_example_loss, params, features, ids: Sequence[str], tolerance: float
) -> None:
  """The loss of an example must not change with its batch."""
  together = np.asarray(per_example_loss(params, features), np.float32)
  alone = np.concatenate(
    [
      np.asarray(per_example_loss(params, example), np.float32)
      for example in _examples(features)
    ]
  )
  finite = np.isfinite(together) & np.isfinite(alone)
  if not finite.all():
    place = _first_place(~finite)
    raise errors.InputError(
      f'the loss of example {_named(ids, place)} is {together[place]} in a '
      f'batch and {alone[place]} alone, expected finite numbers; check the '
      'parameters and the loss, or leave the example out'
    )
  differences = np.abs(together - alone)
  if np.max(differences) > tolerance * (1 + np.max(np.abs(alone))):
    place = _first_place(differences == np.max(differences))
    raise errors.InputError(
      f'the loss of example {_named(ids, place)} is {together[place]:.6g} in a '
      f'batch and {alone[place]:.6g} alone; per_example_loss must not mix the '
      'examples of a batch: evaluate batch normalisation with its running '
      'averages, and dropout deterministically'
    )


def _first_place(wanted: np.ndarray) -> tuple[int, ...]:
  """Where [num_examples] or [num_examples, tokens] is true first."""
  return tuple(np.argwhere(wanted)[0].tolist())


def _named(ids: Sequence[str], place: tuple[int, ...]) -> str:
  token = f' at token {place[1]}' if len(place) > 1 else ''
  return f'{ids[place[0]]}{token}'


@dataclasses.dataclass(frozen=True)
class _Plain:
  """Projections by plain gradients.

  Attributes:
    by_path: [num_examples, projection_dim] float32 by parameter path.
    scales: [num_examples, projection_dim], |gradient| |eigenvector|.
  """

  by_path: dict[str, np.ndarray]
  scales: np.ndarray

  @property
  def projections(self) -> np.ndarray:
    return np.sum(list(self.by_path.values()), axis=0)


def _plain_projections(
  per_example_loss, params, eigenvectors, features, ids: Sequence[str]
) -> _Plain:
  """One example at a time, so that one gradient is held."""
  leaves = parameter_selection.all_parameters(params)
  selected = {path: jnp.asarray(leaves[path]) for path in eigenvectors}

  gradient = jax.jit(
    functools.partial(
      parameter_selection.batch_gradient, per_example_loss, params
    )
  )
  rows: dict[str, list[np.ndarray]] = {path: [] for path in eigenvectors}
  squared_norms = []
  for example_id, example in zip(ids, _examples(features), strict=True):
    squared_norm = 0.0
    for path, leaf in gradient(selected, example).items():
      flat = np.asarray(leaf, np.float32).reshape(-1)
      if not np.isfinite(flat).all():
        raise errors.InputError(
          f'the gradient of example {example_id} by {path} is not finite; '
          'check the parameters and the loss'
        )
      vectors = np.asarray(eigenvectors[path], np.float32)
      vectors = vectors.reshape(len(vectors), -1)
      rows[path].append(host_products.matmul(vectors, flat))
      squared_norm += float(flat @ flat)
    squared_norms.append(squared_norm)
  lengths = sum(
    np.square(np.asarray(vectors, np.float32).reshape(len(vectors), -1)).sum(1)
    for vectors in eigenvectors.values()
  )
  scales = np.sqrt(np.outer(squared_norms, lengths))
  tiny = np.finfo(np.float32).tiny
  return _Plain(
    {path: np.stack(values) for path, values in rows.items()},
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


def _examples(features: types.Features) -> list[types.Features]:
  """Batches of one."""
  count = len(jax.tree.leaves(features)[0])
  return [
    jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i : i + 1], features)
    for i in range(count)
  ]
