"""How projections become scores; it takes no time to import."""

import dataclasses
import re

from influence_core import choices, damping as damping_lib, errors


@dataclasses.dataclass(frozen=True)
class ScoreOptions:
  """How projections are turned into scores; all chosen at query time.

  Attributes:
    damping: value added to every eigenvalue used, >= 0, in units of
      eigenvalues; or, as in 0.1x, that times the mean curvature, which is that
      of each layer for a basis of layers, and for eigenpairs that of all
      parameters, as fit-basis estimates it (directions outside of the pairs
      stay left out). Default: none, and 0.1x for a basis of layers.
    negative_eigenvalues: drop ignores their pairs; abs takes the absolute
      value; clip raises them to the smallest positive eigenvalue, which gives
      these pairs the largest weight of all, however negative they were.
    projection_dim: number of pairs used; default: all.
    layers: regular expression, searched for in the names of layers, which
      describe lists: only their columns count, of a basis of layers;
      gradient_norm divides by the whole |g_x| all the same, cosine by what
      counts. Default: all.
    pair_choice: which pairs are used; random ones are the baseline that shows
      whether the leading ones matter.
    pair_seed: random seed of the choice of random pairs.
    normalization: gradient_norm divides by |g_x| of the training example, so
      that outliers with large gradients do not win every query; cosine divides
      by the self-influence of both sides (square roots), giving scores in [-1,
      1].
  """

  damping: float | str | None = None
  negative_eigenvalues: choices.NegativeEigenvalues = 'drop'
  projection_dim: int | None = None
  layers: str | None = None
  normalization: choices.Normalization = 'none'
  pair_choice: choices.PairChoice = 'leading'
  pair_seed: int = 0

  def __post_init__(self):
    damping_lib.parse(self.damping)
    if self.projection_dim is not None and self.projection_dim < 1:
      raise errors.InputError(
        f'projection_dim is {self.projection_dim}, expected at least 1, the '
        'pairs to use'
      )
    if self.layers is not None:
      try:
        re.compile(self.layers)
      except re.error as error:
        raise errors.InputError(
          f'layers is {self.layers!r}, which is not a regular expression '
          f'({error}); correct it'
        ) from error
    errors.check_choice(
      'negative_eigenvalues',
      self.negative_eigenvalues,
      choices.NegativeEigenvalues,
    )
    errors.check_choice(
      'normalization', self.normalization, choices.Normalization
    )
    errors.check_choice('pair_choice', self.pair_choice, choices.PairChoice)
