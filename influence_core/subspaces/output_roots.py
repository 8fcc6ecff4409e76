"""Square roots of the curvature of a loss in the outputs of a model.

With outputs f of an example, the curvature H of its loss in them, and roots
r_1, r_2, ... whose outer products add up to H (on average over random ones),
the gradients of <r_i, f> add up to the example's Gauss-Newton matrix in the
same way.

For softmax cross-entropy, H = w (diag(p) - p p^T) for each token, the roots
need no matrix, however many outputs there are: with signs s,
sqrt(w) (sqrt(p) s - p <sqrt(p), s>) on average, and the same with the unit
vectors in place of s exactly.
"""

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, loss_contract, types
from influence_core.curvature import products as curvature_products
from influence_core.devices import (
  parameter_layout,
  program as device_program,
)

# Of an example: its curvature is formed where no analytic root is known.
MAX_OUTPUTS = 1024
# Below so many outputs of an example, all roots cost little more than a few.
_MAX_EXACT = 32
# Rounding of float32 products, relative to the largest of them.
_TOLERANCE = 1e-3

Form = Literal['softmax', 'whole']


@dataclasses.dataclass(frozen=True)
class OutputRoots:
  """Roots of the curvature in the outputs of each example.

  Attributes:
    split_loss: the loss in two parts.
    form: how roots are made.
    count_outputs: (features) -> number of outputs of each example.
    num_draws: roots of an example, where its outputs are as many as those of
      the first; exact ones where `is_exact`.
    is_exact: whether they add up to the curvature without chance.
  """

  split_loss: curvature_products.SplitLoss
  form: Form
  count_outputs: Callable[[types.Features], int]
  num_draws: int
  is_exact: bool

  @classmethod
  def of(
    cls,
    split_loss: curvature_products.SplitLoss,
    params: types.Params,
    features: types.Features,
    num_draws: int | None,
  ) -> 'OutputRoots':
    """Finds out what loss of outputs it is.

    Args:
      split_loss: the loss in two parts.
      params: pytree of arrays.
      features: pytree of [num_examples, ...] arrays, a few examples.
      num_draws: random roots of an example; None for all of them where that is
        cheap, else 4.

    Raises:
      errors.InputError: It is no softmax cross-entropy, and there are too many
        outputs for anything else.
    """

    def count(features: types.Features) -> int:
      shapes = jax.eval_shape(split_loss.outputs, params, features)
      return math.prod(shapes.shape[1:])

    num_outputs = count(features)
    is_softmax = _is_softmax(split_loss, params, features)
    if not is_softmax and num_outputs > MAX_OUTPUTS:
      raise errors.InputError(
        f'the model has {num_outputs:,} outputs for an example and its loss is '
        f'no softmax cross-entropy, expected at most {MAX_OUTPUTS:,} of them '
        'for gauss_newton; use --curvature empirical_fisher'
      )
    is_exact = num_draws is None and num_outputs <= _MAX_EXACT
    return cls(
      split_loss,
      'softmax' if is_softmax else 'whole',
      device_program.ByShape(count),
      num_outputs if is_exact else num_draws or 4,
      is_exact,
    )

  def with_draws(
    self, features: types.Features, seed: int | Sequence[int]
  ) -> types.Features:
    """Features for `pseudo_loss`, as many of each example as it has roots.

    The outer products of the gradients of an example add up to its matrix.
    """
    count = len(jax.tree.leaves(features)[0])
    if self.is_exact:
      num_draws = self.count_outputs(features)
      draws = np.tile(np.eye(num_draws, dtype=np.float32), (count, 1))
    else:
      # Keys, as the signs of a whole vocabulary for each token are large.
      num_draws = self.num_draws
      draws = np.random.default_rng(seed).integers(
        0, 1 << 32, (count * num_draws, 2), np.uint32
      )
    repeated = jax.tree.map(
      lambda leaf: np.repeat(leaf, num_draws, axis=0), features
    )
    return {'features': repeated, 'draw': draws}

  def pseudo_loss(
    self, params: types.Params, features: types.Features
  ) -> jax.Array:
    """[batch] values whose gradients are the roots of Gauss-Newton matrices."""
    outputs = self.split_loss.outputs(params, features['features'])
    root = {'softmax': self._softmax_root, 'whole': self._whole_root}[self.form]
    draws = self._draws(features['draw'], math.prod(outputs.shape[1:]))
    roots = root(jax.lax.stop_gradient(outputs), features['features'], draws)
    return jnp.sum(
      (roots * outputs.astype(jnp.float32)).reshape(len(outputs), -1), axis=1
    )

  def _draws(self, kept: jax.Array, num_outputs: int) -> jax.Array:
    """[batch, num_outputs] from what `with_draws` gives."""
    if self.is_exact:
      return kept
    signs = jax.vmap(
      lambda key: jax.random.rademacher(key, (num_outputs,), jnp.float32)
    )(kept)
    return signs / math.sqrt(self.num_draws)

  def _softmax_root(self, outputs, features, draws) -> jax.Array:
    draw = draws.reshape(outputs.shape)
    weights = _token_weights(self.split_loss, outputs, features)
    probabilities = jax.nn.softmax(outputs.astype(jnp.float32), axis=-1)
    part = jnp.sqrt(probabilities) * draw
    root = part - probabilities * part.sum(axis=-1, keepdims=True)
    return jnp.sqrt(weights)[..., None] * root

  def _whole_root(self, outputs, features, draws) -> jax.Array:
    def of_example(outputs, draw, example):
      roots, vectors = whole_root(self.split_loss, outputs, example)
      return (vectors @ (roots * draw)).reshape(outputs.shape)

    return jax.vmap(of_example)(outputs, draws, features)


def whole_root(
  split_loss: curvature_products.SplitLoss,
  outputs: jax.Array,
  example: types.Features,
) -> tuple[jax.Array, jax.Array]:
  """The curvature in the outputs of one example, formed and taken apart.

  Args:
    split_loss: the loss in two parts.
    outputs: of the example; no derivative is taken through them.
    example: its features.

  Returns:
    Square roots of the eigenvalues, [num_outputs], and the eigenvectors as
    columns.
  """

  def output_loss(flat):
    batch = jax.tree.map(lambda leaf: leaf[None], example)
    return split_loss.output_loss(flat.reshape(1, *outputs.shape), batch)[0]

  flat = jax.lax.stop_gradient(outputs).reshape(-1).astype(jnp.float32)
  eigenvalues, vectors = jnp.linalg.eigh(jax.hessian(output_loss)(flat))
  return jnp.sqrt(jnp.maximum(eigenvalues, 0)), vectors


def _curvature_product(
  split_loss: curvature_products.SplitLoss, features: types.Features
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """(outputs, vectors) -> products with the curvature in the outputs."""

  def product(outputs, vectors):
    def gradient(outputs):
      return jax.grad(
        lambda x: split_loss.output_loss(x, features).astype(jnp.float32).sum()
      )(outputs)

    return jax.jvp(gradient, (outputs,), (vectors,))[1]

  return product


def _token_weights(
  split_loss: curvature_products.SplitLoss,
  outputs: jax.Array,
  features: types.Features,
) -> jax.Array:
  """The weight w of each softmax, [batch, ...] without the last axis.

  By the curvature along some vector v, which is w times the variance of v.
  """
  outputs = outputs.astype(jnp.float32)
  generator = np.random.default_rng(0)
  vector = generator.standard_normal(outputs.shape[-1]).astype(np.float32)
  probe = jnp.broadcast_to(vector, outputs.shape)
  found = _curvature_product(split_loss, features)(outputs, probe)
  probabilities = jax.nn.softmax(outputs, axis=-1)
  # From the mean, or a confident softmax would leave nothing but rounding.
  deviations = probe - (probabilities * probe).sum(-1, keepdims=True)
  variances = (probabilities * deviations**2).sum(-1)
  curvatures = jnp.maximum((found * deviations).sum(-1), 0)
  tiny = np.finfo(np.float32).tiny
  return jnp.where(variances > tiny, curvatures / (variances + tiny), 0)


def _is_softmax(
  split_loss: curvature_products.SplitLoss,
  params: types.Params,
  features: types.Features,
) -> bool:
  """Whether the curvature is that of weighted softmax cross-entropies."""
  shape = jax.eval_shape(split_loss.outputs, params, features).shape
  if len(shape) < 2 or shape[-1] < 2:
    return False
  difference = jax.jit(functools.partial(_softmax_difference, split_loss))
  # One after the other: outputs are tokens times a whole vocabulary, and calls
  # that are not waited for hold their temporaries at the same time.
  placed = parameter_layout.fit_devices(params)
  found = [
    np.array(difference(placed, example))
    for example in loss_contract.single_examples(features)
  ]
  differences, sizes = np.array(found).T
  return bool(differences.max() <= _TOLERANCE * sizes.max())


def _softmax_difference(
  split_loss: curvature_products.SplitLoss,
  params: types.Params,
  features: types.Features,
) -> tuple[jax.Array, jax.Array]:
  """How far products are from those of softmax, and how large they are."""
  outputs = split_loss.outputs(params, features).astype(jnp.float32)
  weights = _token_weights(split_loss, outputs, features)
  generator = np.random.default_rng(1)
  vectors = jnp.asarray(generator.standard_normal(outputs.shape), jnp.float32)
  probabilities = jax.nn.softmax(outputs, axis=-1)
  part = probabilities * vectors
  expected = weights[..., None] * (
    part - probabilities * part.sum(-1, keepdims=True)
  )
  found = _curvature_product(split_loss, features)(outputs, vectors)
  largest = jnp.maximum(jnp.abs(expected).max(), jnp.abs(found).max())
  return jnp.abs(found - expected).max(), largest
