import jax
import jax.numpy as jnp
import numpy as np
import pytest

from influence_core import errors
from pipeline.tasks import checkpoints

TREE = {'params': {'a': np.arange(3.0, dtype=np.float32), 'b': [np.ones(2)]}}


@pytest.fixture
def path(tmp_path):
  checkpoints.save_arrays(str(tmp_path / 'c'), TREE)
  return str(tmp_path / 'c')


def test_reads_back_exactly_with_and_without_expectation(path):
  like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, TREE))
  for found in (
    checkpoints.load_arrays(path),
    checkpoints.load_arrays(path, like),
  ):
    jax.tree.map(np.testing.assert_array_equal, found, TREE)


def test_bfloat16_survives(tmp_path):
  tree = {'a': jnp.arange(3, dtype=jnp.bfloat16)}
  checkpoints.save_arrays(str(tmp_path / 'c'), tree)
  assert checkpoints.load_arrays(str(tmp_path / 'c'))['a'].dtype == jnp.bfloat16


def test_an_existing_checkpoint_is_never_replaced(path):
  with pytest.raises(errors.InputError, match='already exists'):
    checkpoints.save_arrays(path, TREE)


@pytest.mark.parametrize(
  ('like', 'message'),
  [
    ({'params': {'a': np.zeros(3)}}, r'params/b/0 is \(2,\), expected absent'),
    (
      {'params': {'a': np.zeros(4), 'b': [np.zeros(2)]}},
      r'params/a is \(3,\), expected \(4,\)',
    ),
    (
      {'params': {'a': np.zeros(3), 'b': [np.zeros(2)], 'c': np.zeros(1)}},
      r'params/c is absent, expected \(1,\)',
    ),
  ],
)
def test_checkpoint_of_another_model_is_refused(path, like, message):
  with pytest.raises(errors.InputError, match=message):
    checkpoints.load_arrays(path, like)


def test_directory_without_checkpoint_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='no checkpoint at'):
    checkpoints.load_arrays(str(tmp_path / 'absent'))
  with pytest.raises(errors.InputError, match='is no Orbax checkpoint'):
    checkpoints.load_arrays(str(tmp_path))
