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
  draw: Callable[[types.Features, tuple[int, ...]], types.Features]
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
        loaded.task.per_example_loss, lambda examples, place: examples, 1, True
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
      lambda examples, place: roots.with_draws(
        examples, (seed, process, *place)
      ),
      roots.num_draws,
      roots.is_exact,
    )

  def few(self, loaded: loaded_task.LoadedTask) -> types.Features:
    """Features of `loss` for the first examples of the corpus."""
    return self.draw(loaded.checked_features, ())

  def sample(
    self,
    loaded: loaded_task.LoadedTask,
    blocks: factored_sample.Blocks,
    keeper: factored_sample.PassKeeper | None = None,
  ) -> factored_sample.FactoredSample:
    """The gradients of examples, for means over them.

    Args:
      loaded: the task.
      blocks: see `FactoredSample`.
      keeper: see there; None for none.

    Raises:
      errors.InputError: The loss does not work on a single example.
    """
    gradients = factored_gradients.FactoredGradients(
      self.loss,
      loaded.params,
      selected=loaded.selected,
      features=self.few(loaded),
    )
    leaves = parameter_selection.all_parameters(loaded.params)
    return factored_sample.FactoredSample(
      gradients,
      leaves,
      blocks,
      self.draw,
      keeper=keeper,
    )
