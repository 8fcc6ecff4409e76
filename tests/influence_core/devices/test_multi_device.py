import jax
import numpy as np
import pytest

from influence_core.devices import multi_device


@pytest.mark.parametrize('total', [1, 4, 5, 8])
def test_batches_cover_every_example_once(total):
  features = {'x': np.arange(total) + 1.0, 'empty': np.zeros((total, 0, 2))}
  batches = list(multi_device.padded_batches(features, 4))
  devices = jax.local_device_count()
  for batch in batches:
    assert batch.mask.shape == (devices, 4 // devices)
    assert batch.features['x'].shape == (devices, 4 // devices)
    assert batch.features['empty'].shape == (devices, 4 // devices, 0, 2)
  valid = [b.features['x'].reshape(-1)[: b.num_valid] for b in batches]
  np.testing.assert_array_equal(np.concatenate(valid), features['x'])
  # Padding repeats a real example and is masked out.
  padding = [b.features['x'].reshape(-1)[b.num_valid :] for b in batches]
  assert set(np.concatenate(padding)) <= {float(total)}
  assert sum(batch.mask.sum() for batch in batches) == total


def test_replicate_puts_one_copy_on_each_device():
  tree = multi_device.replicate({'a': np.arange(3.0)})
  assert tree['a'].shape == (jax.local_device_count(), 3)
  assert len(tree['a'].sharding.device_set) == jax.local_device_count()


def test_devices_are_in_the_order_of_processes(monkeypatch):
  """Topologies may go back and forth between processes; pmap does not."""
  by_process = [['a', 'c'], ['b', 'd']]
  monkeypatch.setattr(jax, 'process_count', lambda: 2)
  monkeypatch.setattr(jax, 'devices', lambda: ['a', 'b', 'c', 'd'])
  monkeypatch.setattr(
    jax, 'local_devices', lambda process_index=0: by_process[process_index]
  )
  assert multi_device.devices_by_process() == ['a', 'c', 'b', 'd']


def test_arrays_are_cut_in_that_order(monkeypatch):
  asked = []

  def devices():
    asked.append(1)
    return jax.devices()

  monkeypatch.setattr(multi_device, 'devices_by_process', devices)
  multi_device.shard_along(0)
  assert asked == [1]
