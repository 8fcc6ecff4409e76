"""The projector of a task, compared with plain gradients before it is used."""

from collections.abc import Callable
import functools

import jax
import numpy as np

from influence_core import errors, types
from influence_core.eigenpairs.basis import Basis
from influence_core.projection import (
  check as projection_check,
  projector as gradient_projection,
)
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  check as subspace_check,
  factored_gradients,
  lifting,
  projector as subspace_projector,
)
from influence_core.subspaces.subspace_basis import SubspaceBasis
from pipeline.tasks import loaded_task

# Eigenpairs, subspaces of layers, or vectors [projection_dim, *parameter shape]
# by parameter path.
AnyBasis = Basis | SubspaceBasis | types.SelectedParameters
Projector = (
  gradient_projection.GradientProjector | subspace_projector.SubspaceProjector
)


def make_projector(
  loaded: loaded_task.LoadedTask,
  basis: AnyBasis,
  options: ProjectionOptions,
  *,
  num_examples: int | None = None,
  per_token: bool = False,
) -> Projector:
  """Compiles the projection of a task's examples and checks it on a few.

  Args:
    loaded: the task.
    basis: to project on.
    options: how to project.
    num_examples: most examples of a call, if known.
    per_token: whether each token of an example is projected by itself.

  Raises:
    errors.InputError: The projection cannot be made or is wrong.
  """
  projector = compile_projector(
    loaded, basis, options, num_examples=num_examples, per_token=per_token
  )
  check(projector, loaded, basis)
  return projector


def compile_projector(
  loaded: loaded_task.LoadedTask,
  basis: AnyBasis,
  options: ProjectionOptions,
  *,
  num_examples: int | None = None,
  per_token: bool = False,
) -> Projector:
  """The first half of `make_projector`."""
  loss = loaded.task.per_example_loss
  if per_token:
    assert loaded.task.token_losses is not None
    loss = loaded.task.token_losses
  if isinstance(basis, SubspaceBasis):
    return subspace_projector.SubspaceProjector(
      loss,
      loaded.params,
      stacks=basis.report.stacks,
      directions=basis.directions,
      selected=loaded.selected,
      features=loaded.planned_features,
      options=options,
      num_examples=num_examples,
    )
  return gradient_projection.GradientProjector(
    loss,
    loaded.params,
    eigenvectors=_vectors(basis),
    features=loaded.planned_features,
    options=options,
    num_examples=num_examples,
  )


def make_lift(
  loaded: loaded_task.LoadedTask, basis: AnyBasis
) -> Callable[[types.Array], types.SelectedParameters]:
  """From weights of columns to the direction in parameters that they stand for.

  Args:
    loaded: the task.
    basis: that columns are of.

  Returns:
    [projection_dim] weights -> v with <v, g> = <weights, projection of g>, by
    path.
  """
  if not isinstance(basis, SubspaceBasis):
    vectors = _vectors(basis)
    return lambda weights: {
      path: np.tensordot(weights, np.asarray(own, np.float32), axes=1)
      for path, own in vectors.items()
    }
  gradients = factored_gradients.FactoredGradients(
    loaded.task.per_example_loss,
    loaded.params,
    selected=loaded.selected,
    features=loaded.checked_features,
  )
  shapes = {
    path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for path, leaf in loaded.selected.items()
  }
  return jax.jit(
    functools.partial(
      lifting.lift,
      stacks=basis.report.stacks,
      directions=basis.directions,
      matrices=gradients.matrices,
      leaves=shapes,
    )
  )


def check(
  projector: Projector, loaded: loaded_task.LoadedTask, basis: AnyBasis
) -> float:
  """The second half: the error of a projector, see `projection.check`.

  Raises:
    errors.InputError: The projection is wrong, or no example at the beginning
      of the corpus has a finite gradient.
  """
  for batch, _ in loaded.finite_batches():
    error = _check_on(projector, loaded, basis, batch.features)
    if error is not None:
      return error
  raise errors.InputError(
    f'task {loaded.task.name}: the gradient of {loaded.checked_ids[0]}, and of '
    'all others at the beginning of the corpus, is not finite; check the '
    'parameters and the loss'
  )


def _check_on(
  projector: Projector,
  loaded: loaded_task.LoadedTask,
  basis: AnyBasis,
  features: types.Features,
) -> float | None:
  if isinstance(projector, subspace_projector.SubspaceProjector):
    assert isinstance(basis, SubspaceBasis)
    return subspace_check.check_projector(
      projector,
      loaded.task.per_example_loss,
      loaded.params,
      basis=basis,
      selected=loaded.selected,
      features=features,
    )
  return projection_check.check_projector(
    projector,
    loaded.task.per_example_loss,
    loaded.params,
    eigenvectors=_vectors(basis),
    features=features,
  )


def _vectors(basis: AnyBasis) -> types.SelectedParameters:
  assert not isinstance(basis, SubspaceBasis)
  return basis.eigenvectors if isinstance(basis, Basis) else basis
