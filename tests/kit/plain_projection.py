"""Projects per-example gradients that are formed as a whole.

The plain way, by `jax.grad` alone: slow, and its memory grows with batch times
parameters, but with nothing to go wrong. Tests and benchmarks hold the factored
projection against it; `projection.check` does so at the start of a job, one
example at a time.
"""

import jax
import jax.numpy as jnp

from influence_core import parameter_selection, types


def project_gradients(
  per_example_loss: types.PerExampleLoss,
  params: types.Params,
  eigenvectors: types.SelectedParameters,
  features: types.Features,
) -> types.ProjectedExamples:
  """Projections of the gradient of each example's loss; traceable.

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
  dim = parameter_selection.num_vectors(eigenvectors)
  projections = jnp.zeros((len(losses), dim), jnp.float32)
  squared_norms = jnp.zeros(len(losses), jnp.float32)
  for path, gradient in gradients.items():
    rows = gradient.reshape(len(gradient), -1).astype(jnp.float32)
    vectors = eigenvectors[path].reshape(len(eigenvectors[path]), -1)
    projections += jnp.matmul(
      rows, vectors.T, precision=jax.lax.Precision.HIGHEST
    )  # [batch, projection_dim]
    squared_norms += jnp.sum(rows * rows, axis=1)
  return types.ProjectedExamples(projections, squared_norms, losses)
