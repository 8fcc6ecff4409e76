"""Fits and projects in this process and prints what came out, as JSON.

Run by `test_example_maps` in a process of its own, which has several simulated
devices: python -m tests.kit.subspaces_on_devices PLACEMENT BUDGET
"""

import dataclasses
import json
import sys
from typing import Any

import jax
import numpy as np
import optax

from influence_core import parameter_selection
from influence_core.curvature import products as curvature_products
from influence_core.devices import memory as device_memory
from influence_core.projection.options import ProjectionOptions
from influence_core.subspaces import (
  check as subspace_check,
  factored_gradients,
  factored_sample,
  kronecker,
  layers as layers_lib,
  output_roots,
  projector as subspace_projector,
  subspace_basis,
)
from launch.example_tasks import decoder

CONFIG = decoder.DecoderConfig(
  vocabulary_size=64,
  width=96,
  num_layers=8,
  num_heads=4,
  num_key_value_heads=4,
  head_width=24,
  hidden_width=384,
  num_positions=32,
  norm='rms',
  norm_epsilon=1e-6,
  activation='silu',
  is_gated=True,
  rotary_width=24,
)


# Whether the devices of a program each had all of a parameter.
HELD_WHOLE: set[bool] = set()


def outputs(params, features):
  if jax.local_device_count() > 1:
    jax.debug.inspect_array_sharding(
      params['params']['norm']['scale'],
      callback=lambda sharding: HELD_WHOLE.add(sharding.is_fully_replicated),
    )
  model = decoder.Decoder(CONFIG, is_rematerialised=True)
  return model.apply(params, features['tokens'])[:, :-1]


def output_loss(logits, features):
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, features['tokens'][:, 1:]
  ).sum(axis=1)


def main(placement: Any, budget: int) -> dict[str, Any]:
  """Bytes on a device, and numbers that no placement may change.

  Args:
    placement: of parameters.
    budget: bytes of memory on each device, for the projection.
  """
  split_loss = curvature_products.SplitLoss(outputs, output_loss)
  params = jax.tree.map(np.asarray, decoder.initialise(CONFIG))
  selected = parameter_selection.select_parameters(params)
  tokens = np.random.default_rng(0).integers(0, 64, (10, 12), np.int32)
  features = {'tokens': tokens}
  gradients = factored_gradients.FactoredGradients(
    split_loss.per_example_loss, params, selected=selected, features=features
  )
  leaves = parameter_selection.all_parameters(params)
  sample = factored_sample.FactoredSample(
    gradients,
    leaves,
    [[features]],
    memory_budget_bytes=1 << 30,
    parameter_placement=placement,
  )
  roots = output_roots.OutputRoots.of(split_loss, params, features, 1)
  layers = layers_lib.find(gradients, leaves, features)
  fitted = kronecker.fit(sample, layers, 4)
  directions = {path: one.directions for path, one in fitted.stacks.items()}
  projector = subspace_projector.SubspaceProjector(
    split_loss.per_example_loss,
    params,
    stacks=layers.stacks,
    directions=directions,
    selected=selected,
    features=features,
    options=ProjectionOptions(
      parameter_placement=placement, memory_budget_bytes=budget
    ),
    num_examples=len(tokens),
  )
  basis = dataclasses.replace(
    subspace_basis.SubspaceBasis.random(layers, 4), directions=directions
  )
  error = subspace_check.check_projector(
    projector,
    split_loss.per_example_loss,
    params,
    basis=basis,
    selected=selected,
    features=features,
  )
  found = projector.project(features)
  return {
    'held_whole': sorted(HELD_WHOLE),
    'form': roots.form,
    'error': error,
    'resident_bytes': projector.resident_bytes,
    'temporary_bytes': projector.program.temporary_bytes,
    'eigenvalues': [
      one.eigenvalues.ravel().tolist() for one in fitted.stacks.values()
    ],
    # The sign of an eigenvector is arbitrary.
    'projections': np.abs(found.projections).tolist(),
    'norms': found.squared_gradient_norms.tolist(),
    'losses': found.losses.tolist(),
  }


if __name__ == '__main__':
  jax.config.update('jax_default_matmul_precision', 'highest')
  device_memory.default_budget_bytes = lambda: int(sys.argv[2])
  print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
