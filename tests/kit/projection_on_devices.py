"""Projects cases in this process and prints how far they are from one device.

Run by `test_device_placement` in a process of its own, which has several
simulated devices: python -m tests.kit.projection_on_devices PLACEMENT CASE...
"""

import json
import sys

import jax
import numpy as np

from influence_core import parameter_selection
from influence_core.projection import (
  projector as gradient_projection,
)
from influence_core.projection.options import ProjectionOptions
from tests.kit import plain_projection, projection_cases


def main(placement: str, names: list[str]) -> dict[str, float]:
  """The largest error of each case relative to its largest entry."""
  cases = {case.name: case for case in projection_cases.hard_cases()}
  return {name: largest_error(cases[name], placement) for name in names}


def largest_error(case, placement: str) -> float:
  generator = np.random.default_rng(0)
  # Seven eigenvectors: no multiple of blocks, slices or devices.
  basis = {
    path: generator.standard_normal((7, *leaf.shape)).astype(np.float32)
    for path, leaf in parameter_selection.select_parameters(case.params).items()
  }
  found = gradient_projection.GradientProjector(
    case.per_example_loss,
    case.params,
    eigenvectors=basis,
    features=case.features,
    options=ProjectionOptions(basis_placement=placement),
    num_examples=5,
  ).project(case.features)
  expected = jax.jit(
    lambda features: plain_projection.project_gradients(
      case.per_example_loss, case.params, basis, features
    )
  )(case.features)
  return max(
    float(np.max(np.abs(value - wanted)) / np.max(np.abs(wanted)))
    for value, wanted in zip(found, expected, strict=True)
  )


if __name__ == '__main__':
  print(json.dumps(main(sys.argv[1], sys.argv[2:])))
