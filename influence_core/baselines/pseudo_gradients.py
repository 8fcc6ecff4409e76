"""Losses with random gradients whose second moment is the Gauss-Newton matrix.

With outputs f and the curvature of the loss in them, H, the gradient of
<H^(1/2) noise, f> has the second moment J^T H J over normal noise. For the
cross-entropy that is the Fisher matrix, with no labels to be drawn.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, types
from influence_core.curvature import products as curvature_products
from influence_core.subspaces import output_roots


def with_noise(
  split_loss: curvature_products.SplitLoss,
  params: types.Params,
  features: types.Features,
  seed: int,
) -> dict[str, Any]:
  """Features for `loss`: those of the task, and noise.

  Args:
    split_loss: the loss in two parts.
    params: pytree of arrays.
    features: pytree of [num_examples, ...] arrays.
    seed: of the noise.

  Raises:
    errors.InputError: An example has too many outputs.
  """
  first = jax.tree.map(lambda leaf: leaf[:1], features)
  shape = jax.eval_shape(split_loss.outputs, params, first).shape
  size = math.prod(shape[1:])
  if size > output_roots.MAX_OUTPUTS:
    raise errors.InputError(
      f'the model has {size:,} outputs for an example, expected at most '
      f'{output_roots.MAX_OUTPUTS:,} for gauss_newton by EK-FAC; use '
      '--curvature empirical_fisher'
    )
  count = len(jax.tree.leaves(features)[0])
  noise = np.random.default_rng(seed).standard_normal((count, size), np.float32)
  return {'features': features, 'noise': noise}


def loss(split_loss: curvature_products.SplitLoss) -> types.PerExampleLoss:
  """(params, features from `with_noise`) -> [batch], to be differentiated."""

  def of_example(outputs, example):
    roots, vectors = output_roots.whole_root(
      split_loss, outputs, example['features']
    )
    root = vectors @ (roots * (vectors.T @ example['noise']))
    return jnp.dot(root, outputs.reshape(-1))

  def per_example_loss(params, features):
    outputs = split_loss.outputs(params, features['features'])
    return jax.vmap(of_example)(outputs, features)

  return per_example_loss
