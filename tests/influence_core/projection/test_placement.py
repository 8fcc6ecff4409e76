"""Several devices give what one gives, wherever the basis is."""

import json

import pytest

from tests.kit import devices

# One of each kind of contraction: matrix products with one position and with
# many, stacked matrices, convolutions in groups, lookups alone and beside a
# product, dense gradients, and slices of a scan.
CASES = (
  'mlp',
  'position_embedding',
  'soft_mixture_of_experts',
  'convolution_grouped',
  'embedding_of_repeated_ids',
  'weight_norm',
  'language_model_scanned',
)


@pytest.mark.slow
@pytest.mark.parametrize('placement', ['replicated', 'sharded', 'streamed'])
@pytest.mark.parametrize('num_devices', [3])
def test_equals_plain_gradients(placement, num_devices):
  done = devices.run_module(
    'tests.kit.projection_on_devices',
    placement,
    *CASES,
    num_devices=num_devices,
  )
  assert done.returncode == 0, done.stderr
  errors = json.loads(done.stdout)
  assert set(errors) == set(CASES)
  # float32 sums in another order.
  assert max(errors.values()) < 1e-5, errors
