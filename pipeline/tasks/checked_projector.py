"""The projector of a task, compared with plain gradients before it is used."""

from influence_core import errors, types
from influence_core.projection import (
  check as projection_check,
  projector as gradient_projection,
)
from influence_core.projection.options import ProjectionOptions
from pipeline.tasks import loaded_task


def make_projector(
  loaded: loaded_task.LoadedTask,
  eigenvectors: types.SelectedParameters,
  options: ProjectionOptions,
  *,
  num_examples: int | None = None,
) -> gradient_projection.GradientProjector:
  """Compiles the projection of a task's examples and checks it on a few.

  Args:
    loaded: the task.
    eigenvectors: [projection_dim, *parameter shape] by parameter path.
    options: how to project.
    num_examples: most examples of a call, if known.

  Raises:
    errors.InputError: The projection cannot be made or is wrong.
  """
  projector = compile_projector(
    loaded, eigenvectors, options, num_examples=num_examples
  )
  check(projector, loaded, eigenvectors)
  return projector


def compile_projector(
  loaded: loaded_task.LoadedTask,
  eigenvectors: types.SelectedParameters,
  options: ProjectionOptions,
  *,
  num_examples: int | None = None,
) -> gradient_projection.GradientProjector:
  """The first half of `make_projector`."""
  return gradient_projection.GradientProjector(
    loaded.task.per_example_loss,
    loaded.params,
    eigenvectors=eigenvectors,
    features=loaded.planned_features,
    options=options,
    num_examples=num_examples,
  )


def check(
  projector: gradient_projection.GradientProjector,
  loaded: loaded_task.LoadedTask,
  eigenvectors: types.SelectedParameters,
) -> float:
  """The second half: the error of a projector, see `projection.check`.

  Raises:
    errors.InputError: The projection is wrong, or no example at the beginning
      of the corpus has a finite gradient.
  """
  for batch, _ in loaded.finite_batches():
    error = projection_check.check_projector(
      projector,
      loaded.task.per_example_loss,
      loaded.params,
      eigenvectors=eigenvectors,
      features=batch.features,
    )
    if error is not None:
      return error
  raise errors.InputError(
    f'task {loaded.task.name}: the gradient of {loaded.checked_ids[0]}, and of '
    'all others at the beginning of the corpus, is not finite; check the '
    'parameters and the loss'
  )
