"""Where parameters are changes what fits, and nothing else."""

import json

import numpy as np
import pytest

from tests.kit import devices, subspaces_on_devices

# Parameters are 4.8 MB.
TOO_LITTLE = 4_000_000


@pytest.mark.slow
def test_a_model_too_large_for_one_device(tmp_path):
  expected = subspaces_on_devices.main('replicated', 1 << 30)
  done = devices.run_module(
    *('tests.kit.subspaces_on_devices', 'sharded', TOO_LITTLE), num_devices=4
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  used = found['resident_bytes'] + found['temporary_bytes']
  assert used <= TOO_LITTLE < expected['resident_bytes']
  assert found['held_whole'] == [False]
  assert found['form'] == expected['form'] == 'softmax'
  # Two ways to compute in float32, relative to |gradient|.
  assert max(found['error'], expected['error']) < 1e-5
  for name in ('projections', 'norms', 'losses'):
    wanted = np.array(expected[name])
    # float32 sums in another order.
    np.testing.assert_allclose(
      found[name], wanted, atol=1e-4 * np.abs(wanted).max()
    )
  for own, wanted in zip(
    found['eigenvalues'], expected['eigenvalues'], strict=True
  ):
    np.testing.assert_allclose(own, wanted, atol=1e-4 * max(wanted))
