"""Projects per-example gradients on a basis: the work done for every example.

For example x the projection is p[k] = <eigenvector_k, grad loss(x)>, from
which influence follows at query time. The squared gradient norm and the loss
come from the same pass: they tell how much of the gradient the basis captures
and allow normalisation later.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, multi_device, parameter_selection, types

_DEFAULT_BATCH_SIZE_PER_DEVICE = 128


class ProjectedExamples(NamedTuple):
  """What is kept of each example.

  Attributes:
    projections: [num_examples, projection_dim] float32, not scaled by the
      eigenvalues.
    squared_gradient_norms: [num_examples] float32, |g|^2 over the selected
      parameters.
    losses: [num_examples] float32.
  """

  projections: types.Array
  squared_gradient_norms: types.Array
  losses: types.Array


def project_gradients(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  eigenvectors: types.SelectedParameters,
  features: types.Features,
) -> ProjectedExamples:
  """Projections of the gradient of each example's loss; traceable.

  Forms the gradient of every example by vmap and contracts it with the basis
  leaf by leaf, so memory grows with batch times parameters.

  Args:
    per_example_loss: (params, [batch, ...] features) -> [batch] losses.
    params: pytree of arrays.
    eigenvectors: [projection_dim, *parameter shape] by parameter path; its
      keys are the parameters that gradients are taken for.
    features: pytree of [batch, ...] arrays.

  Returns:
    The projections of the batch.
  """
  leaves = parameter_selection.all_parameters(params)
  selected = {path: leaves[path] for path in eigenvectors}

  def loss(selected, example):
    replaced = parameter_selection.replace_parameters(params, selected)
    batch_of_one = jax.tree.map(lambda leaf: leaf[None], example)
    return per_example_loss(replaced, batch_of_one)[0].astype(jnp.float32)

  losses, gradients = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))(
    selected, features
  )  # [batch], [batch, *parameter shape] by path
  dim = len(next(iter(eigenvectors.values())))
  projections = jnp.zeros((len(losses), dim), jnp.float32)
  squared_norms = jnp.zeros(len(losses), jnp.float32)
  for path, gradient in gradients.items():
    rows = gradient.reshape(len(gradient), -1).astype(jnp.float32)
    vectors = eigenvectors[path].reshape(len(eigenvectors[path]), -1)
    projections += jnp.matmul(
      rows, vectors.T, precision=jax.lax.Precision.HIGHEST
    )  # [batch, projection_dim]
    squared_norms += jnp.sum(rows * rows, axis=1)
  return ProjectedExamples(projections, squared_norms, losses)


class GradientProjector:
  """Projects any number of examples on all local devices, compiled once.

  Parameters and basis are copied to every device at construction and stay.
  """

  def __init__(
    self,
    per_example_loss: types.PerExampleLoss,
    params: types.Params,
    *,
    eigenvectors: types.SelectedParameters,
    batch_size: int,
  ):
    """Places parameters and basis on the devices.

    Args:
      per_example_loss: (params, [batch, ...] features) -> [batch] losses.
      params: pytree of arrays.
      eigenvectors: [projection_dim, *parameter shape] by parameter path.
      batch_size: examples of one call over all devices.

    Raises:
      errors.InputError: batch_size is no positive multiple of the number of
        devices, or the basis and the parameters have different shapes.
    """
    _check_shapes(parameter_selection.all_parameters(params), eigenvectors)
    self._batch_size = resolve_batch_size(batch_size)
    self._params = multi_device.replicate(params)
    self._eigenvectors = multi_device.replicate(dict(eigenvectors))

    def project_on_device(params, eigenvectors, features):
      return project_gradients(per_example_loss, params, eigenvectors, features)

    self._project = multi_device.parallel_map(project_on_device)

  def project(self, features: types.Features) -> ProjectedExamples:
    """Projections of [num_examples, ...] features, as numpy arrays."""
    parts = list(self._project_batches(features))
    return ProjectedExamples(*map(np.concatenate, zip(*parts, strict=True)))

  def _project_batches(
    self, features: types.Features
  ) -> Iterator[ProjectedExamples]:
    for batch in multi_device.padded_batches(features, self._batch_size):
      projected = self._project(
        self._params, self._eigenvectors, batch.features
      )
      yield ProjectedExamples(
        *(
          np.asarray(leaf).reshape(-1, *leaf.shape[2:])[: batch.num_valid]
          for leaf in projected
        )
      )


def resolve_batch_size(batch_size: int | None) -> int:
  """The batch size over all local devices; None stands for the default.

  Raises:
    errors.InputError: It cannot be split evenly over the devices.
  """
  devices = jax.local_device_count()
  if batch_size is None:
    return _DEFAULT_BATCH_SIZE_PER_DEVICE * devices
  if batch_size < 1 or batch_size % devices:
    raise errors.InputError(
      f'batch_size is {batch_size}, expected a positive multiple of the number '
      f'of local devices, {devices}'
    )
  return batch_size


def _check_shapes(
  parameters: types.SelectedParameters, eigenvectors: types.SelectedParameters
) -> None:
  for path, vectors in eigenvectors.items():
    expected = parameters[path].shape if path in parameters else 'absent'
    if vectors.shape[1:] != expected:
      raise errors.InputError(
        f'the basis has {path} with shape {vectors.shape[1:]}, the model has '
        f'{expected}; fit a basis for this model'
      )
