"""A loss whose gradients have the curvature as second moment, with a sample."""

from collections.abc import Callable
import dataclasses

import jax

from influence_core import choices, parameter_selection, types
from influence_core.curvature import products as curvature_products
from influence_core.subspaces import (
  factored_gradients,
  factored_sample,
  output_roots,
)
from pipeline.tasks import loaded_task

# Examples whose shapes the loss is traced for.
_NUM_TRIED = 4


@dataclasses.dataclass(frozen=True)
class CurvatureRoots:
  """Gradients whose second moment is the curvature.

  Attributes:
    loss: the loss.
    draw: see `FactoredSample`.
    num_draws: gradients of an example.
    is_exact: whether they make up its curvature without chance.
  """

  loss: types.PerExampleLoss
  draw: Callable[[types.Features, int], types.Features]
  num_draws: int
  is_exact: bool

  @classmethod
  def of(
    cls,
    loaded: loaded_task.LoadedTask,
    curvature: choices.Curvature,
    *,
    num_draws: int | None,
    seed: int,
  ) -> 'CurvatureRoots':
    """Those of a task.

    Args:
      loaded: the task.
      curvature: gauss_newton or empirical_fisher.
      num_draws: see `OutputRoots.of`.
      seed: of random draws.

    Raises:
      errors.InputError: The task has no split loss, or one with too many
        outputs.
    """
    if curvature == 'empirical_fisher':
      return cls(
        loaded.task.per_example_loss, lambda examples, start: examples, 1, True
      )
    loaded.check_split_loss()
    roots = output_roots.OutputRoots.of(
      curvature_products.require_split_loss(loaded.task.split_loss),
      loaded.params,
      loaded.checked_features,
      num_draws,
    )
    process = jax.process_index()
    return cls(
      roots.pseudo_loss,
      lambda examples, start: roots.with_draws(
        examples, (seed, process, start)
      ),
      roots.num_draws,
      roots.is_exact,
    )

  def few(self, examples: types.Features) -> types.Features:
    """Features of `loss` for the first of the examples."""
    return self.draw(jax.tree.map(lambda leaf: leaf[:_NUM_TRIED], examples), 0)

  def sample(
    self, loaded: loaded_task.LoadedTask, examples: types.Features
  ) -> factored_sample.FactoredSample:
    """The gradients of examples, for means over them.

    Args:
      loaded: the task.
      examples: pytree of [num_examples, ...] arrays of this process.

    Raises:
      errors.InputError: The loss does not work on a single example.
    """
    gradients = factored_gradients.FactoredGradients(
      self.loss,
      loaded.params,
      selected=loaded.selected,
      features=self.few(examples),
    )
    leaves = parameter_selection.all_parameters(loaded.params)
    return factored_sample.FactoredSample(
      gradients, leaves, examples, self.draw
    )
