"""Compares curvature products on several devices with the explicit matrix.

Run by `test_curvature_products` in a process of its own, which has simulated
devices: python -m tests.curvature_on_devices.
"""

import json

import jax
import numpy as np

from tests import test_curvature_products


def main() -> dict[str, dict[str, float]]:
  """Error relative to the largest entry, and bytes, for each placement."""
  expected = test_curvature_products.explicit(l2_weight=0.3)
  return {
    placement: _measure(placement, expected)
    for placement in ('replicated', 'sharded')
  }


def _measure(placement, expected) -> dict[str, float]:
  operator = test_curvature_products.make_operator(
    parameter_placement=placement, microbatch_size=2, l2_weight=0.3
  )
  found = test_curvature_products.as_matrix(operator)
  return {
    'error': float(np.abs(found - expected).max() / np.abs(expected).max()),
    'resident_bytes': operator.resident_bytes,
    'num_devices': jax.device_count(),
  }


if __name__ == '__main__':
  print(json.dumps(main()))
