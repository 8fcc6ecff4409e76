"""Compares curvature products on several devices with the explicit matrix.

Run by `test_curvature_products` in a process of its own, which has simulated
devices: python -m tests.kit.curvature_on_devices.
"""

import json

import jax
import numpy as np

from influence_core.devices import (
  memory as device_memory,
  multi_device,
  parameter_layout,
)
from influence_core.eigenpairs import device_vectors
from tests.influence_core.curvature import (
  test_products as test_curvature_products,
)


def main() -> dict[str, dict[str, float]]:
  """Errors relative to the largest entry, and bytes, of each placement."""
  expected = test_curvature_products.explicit(l2_weight=0.3)
  return {
    'loss': _measure_loss(),
    'combined': _measure_combined(),
    **{
      placement: _measure(placement, expected)
      for placement in ('replicated', 'sharded')
    },
  }


def _measure_loss() -> dict[str, float]:
  """Of parameters that are too many for one device."""
  params = test_curvature_products.PARAMS
  budget = device_memory.default_budget_bytes
  device_memory.default_budget_bytes = lambda: 71
  spread = parameter_layout.fit_devices(params)
  device_memory.default_budget_bytes = lambda: 72
  whole = parameter_layout.fit_devices(params).values()
  assert all(len(leaf.addressable_shards) == 1 for leaf in whole)
  device_memory.default_budget_bytes = budget
  sample = test_curvature_products.SAMPLE
  expected, found = (
    test_curvature_products.per_example_loss(p, sample)
    for p in (params, spread)
  )
  return {
    'error': float(abs(found - expected).max() / abs(expected).max()),
    'resident_bytes': sum(
      leaf.addressable_shards[0].data.nbytes for leaf in spread.values()
    ),
    'num_devices': jax.local_device_count(),
  }


def _measure_combined() -> dict[str, float]:
  """Of combinations of vectors, which the owner of the columns makes alone."""
  slice_size, devices = 5, jax.local_device_count()
  size = slice_size * devices
  vectors = device_vectors.DeviceVectors(
    3, slice_size, np.dtype(np.float32), block_columns=2
  )
  rows = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
  for row in rows:
    vectors.append(multi_device.place(row.reshape(devices, -1)), 1.0)
  used = set()
  combine_block = device_vectors._combine_block

  def noting(*arguments):
    block = combine_block(*arguments)
    used.add(len(block.sharding.device_set))
    return block

  device_vectors._combine_block = noting
  coefficients = np.array([[1.0, -2, 3], [0, 1, 1]], np.float32)
  found = vectors.combine(coefficients, 1, size - 1)
  expected = (coefficients @ rows)[:, 1:-1]
  [devices_of_a_block] = used
  return {
    'error': float(abs(found - expected).max() / abs(expected).max()),
    'devices_of_a_block': devices_of_a_block,
    'num_devices': devices,
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
