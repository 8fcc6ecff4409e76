import json
import pathlib
from typing import Any

from flax import nnx, struct
import flax.linen as nn
from flax.training import train_state
import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import safetensors.numpy

from influence_core import errors
from pipeline.tasks import checkpoints

TREE = {'params': {'a': np.arange(3.0, dtype=np.float32), 'b': [np.ones(2)]}}


@pytest.fixture
def path(tmp_path):
  checkpoints.save_arrays(str(tmp_path / 'c'), TREE)
  return str(tmp_path / 'c')


def assert_same(found, expected):
  jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_reads_back_exactly_with_and_without_expectation(path):
  like = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, TREE))
  assert_same(checkpoints.load_arrays(path), TREE)
  assert_same(checkpoints.load_arrays(path, like), TREE)


def test_bfloat16_survives(tmp_path):
  tree = {'a': jnp.arange(3, dtype=jnp.bfloat16)}
  checkpoints.save_arrays(str(tmp_path / 'c'), tree)
  assert checkpoints.load_arrays(str(tmp_path / 'c'))['a'].dtype == jnp.bfloat16


def test_an_existing_checkpoint_is_never_replaced(path):
  with pytest.raises(errors.InputError, match='already exists'):
    checkpoints.save_arrays(path, TREE)


@pytest.mark.parametrize(
  ('like', 'more', 'message'),
  [
    ({'params': {'a': np.zeros(3)}}, {}, r'params/b/0 is \(2,\), expected abs'),
    (
      {'params': {'a': np.zeros(4), 'b': [np.zeros(2)]}},
      {},
      r'params/a is \(3,\), expected \(4,\)',
    ),
    (
      {'params': {'a': np.zeros(3), 'b': [np.zeros(2)], 'c': np.zeros(3)}},
      {},
      r'params/c is absent, expected \(3,\); closest are params/a \(3,\);',
    ),
    (
      {'a': np.zeros(3), 'b': [np.zeros(2)]},
      {},
      "is at 'params', give it by at=",
    ),
    ({}, {'at': 'opt_state'}, "has no 'opt_state'; it has params; pass one of"),
    ({}, {'at': 'params/c'}, "has no 'params/c'; params has a, b; pass one"),
    ({}, {'step': 3}, 'is one checkpoint, expected the directory of all steps'),
    ({}, {'names': {}}, 'has no safetensors or .npz file, for which names= is'),
  ],
)
def test_checkpoint_of_another_model_is_refused(path, like, more, message):
  with pytest.raises(errors.InputError, match=message):
    checkpoints.load_arrays(path, like, **more)


def test_directory_without_checkpoint_is_refused(tmp_path):
  with pytest.raises(errors.InputError, match='no checkpoint at'):
    checkpoints.load_arrays(str(tmp_path / 'absent'))
  (tmp_path / '10').mkdir()
  (tmp_path / '10' / 'model.pt').write_bytes(b'?')
  with pytest.raises(errors.InputError, match='is no Orbax checkpoint'):
    checkpoints.load_arrays(str(tmp_path))


class Network(nn.Module):
  @nn.compact
  def __call__(self, x):
    return nn.BatchNorm(use_running_average=True)(nn.Dense(4)(x))


class TrainState(train_state.TrainState):
  batch_stats: Any
  key: jax.Array
  nothing: None = None


def train_state_of_step(step: int) -> TrainState:
  network = Network()
  variables = network.init(jax.random.key(step), jnp.ones((1, 3)))
  return TrainState.create(
    apply_fn=network.apply,
    tx=optax.adam(1e-3),
    key=jax.random.key(7),
    **variables,
  )


@pytest.fixture(scope='module')
def steps(tmp_path_factory):
  """Steps 5 and 10 of a CheckpointManager, each array in files of its own."""
  directory = tmp_path_factory.mktemp('steps')
  handler = ocp.PyTreeCheckpointHandler(use_ocdbt=False)
  with ocp.CheckpointManager(directory, item_handlers=handler) as manager:
    for step in (5, 10):
      state = train_state_of_step(step)
      manager.save(step, args=ocp.args.PyTreeSave(state))
  return directory


@pytest.mark.parametrize('place', ['', '10', '10/default'])
def test_parameters_are_found_in_a_train_state(steps, place):
  found = checkpoints.load_arrays(str(steps / place), at='params')
  assert_same(found, train_state_of_step(10).params)


def test_a_step_is_chosen_by_number(steps):
  found = checkpoints.load_arrays(str(steps), at='params', step=5)
  assert_same(found, train_state_of_step(5).params)
  with pytest.raises(errors.InputError, match='has no step 6; it has 5, 10'):
    checkpoints.load_arrays(str(steps), at='params', step=6)


def test_several_parts_make_a_dict(steps):
  state = train_state_of_step(10)
  like = {'params': state.params, 'batch_stats': state.batch_stats}
  found = checkpoints.load_arrays(
    str(steps), jax.eval_shape(lambda: like), at=('params', 'batch_stats')
  )
  assert_same(found, like)


def test_the_optimizer_is_never_read(steps):
  for part in pathlib.Path(steps, '5', 'default').glob('opt_state.*'):
    for chunk in part.glob('[0-9]*'):
      chunk.unlink()
  state = train_state_of_step(5)
  found = checkpoints.load_arrays(
    str(steps), jax.eval_shape(lambda: state.params), at='params', step=5
  )
  assert_same(found, state.params)


def test_a_whole_train_state_is_read_with_keys_numbers_and_none(steps):
  state = train_state_of_step(10)
  found = checkpoints.load_arrays(str(steps), state)
  assert isinstance(found, TrainState)
  assert found.step == 0
  assert jnp.array_equal(
    jax.random.uniform(found.key), jax.random.uniform(state.key)
  )
  assert_same(found.opt_state, state.opt_state)


def test_the_item_is_told_where_a_step_has_several(tmp_path):
  state = train_state_of_step(1)
  options = ocp.CheckpointManagerOptions(
    step_prefix='run', step_format_fixed_length=6
  )
  with ocp.CheckpointManager(tmp_path, options=options) as manager:
    saved = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      averaged=ocp.args.StandardSave({'w': np.ones(3)}),
      notes=ocp.args.JsonSave({'epoch': 1}),
    )
    manager.save(1, args=saved)
  found = checkpoints.load_arrays(str(tmp_path), at='averaged')
  assert_same(found, {'w': np.ones(3)})
  with pytest.raises(
    errors.InputError, match="at 'state/params' and at 'state/opt_state"
  ):
    checkpoints.load_arrays(str(tmp_path), state.params)
  found = checkpoints.load_arrays(
    str(tmp_path), state.params, at='state/params'
  )
  assert_same(found, state.params)


class Module(nnx.Module):
  def __init__(self, rngs: nnx.Rngs):
    self.layers = nnx.List([nnx.Linear(3, 3, rngs=rngs) for _ in range(2)])
    self.norm = nnx.BatchNorm(3, rngs=rngs)
    self.dropout = nnx.Dropout(0.5, rngs=rngs)


@pytest.mark.parametrize('saved', ['state', 'pure'])
@pytest.mark.parametrize('wanted', ['state', 'abstract', 'pure'])
def test_states_of_nnx_however_saved(tmp_path, saved, wanted):
  state = nnx.state(Module(nnx.Rngs(1)))
  kinds = {
    'state': state,
    'abstract': nnx.state(nnx.eval_shape(lambda: Module(nnx.Rngs(1)))),
    'pure': nnx.to_pure_dict(state),
  }
  with ocp.StandardCheckpointer() as checkpointer:
    checkpointer.save(tmp_path / 'c', kinds[saved])
  found = checkpoints.load_arrays(str(tmp_path / 'c'), kinds[wanted])
  if wanted != 'pure':
    module = Module(nnx.Rngs(2))
    nnx.update(module, found)
    found = nnx.to_pure_dict(nnx.state(module))
  keys = found['dropout']['rngs'].pop('key'), state['dropout']['rngs']['key']
  assert jnp.array_equal(*map(jax.random.key_data, (keys[0], keys[1][...])))
  expected = nnx.to_pure_dict(state)
  del expected['dropout']['rngs']['key']
  assert_same(found, expected)


@struct.dataclass
class Parameters:
  w: Any
  more: tuple
  steps: int
  nothing: None = None


def test_dataclasses_tuples_and_numbers(tmp_path):
  params = Parameters(np.ones((2, 3)), (np.zeros(1), jax.random.key(3)), 4)
  checkpoints.save_arrays(str(tmp_path / 'c'), params)
  found = checkpoints.load_arrays(str(tmp_path / 'c'), params)
  assert isinstance(found, Parameters)
  assert (found.steps, found.nothing) == (4, None)
  assert jnp.array_equal(
    jax.random.bits(found.more[1]), jax.random.bits(jax.random.key(3))
  )
  assert_same(found.w, params.w)


WEIGHTS = {
  'enc.layers.0.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'enc.layers.1.weight': np.ones((3, 3), ml_dtypes.bfloat16),
  'enc.position_ids': np.arange(4),
}
NAMES = {
  r'enc\.layers\.(\d)\.weight': (r'Dense_\1/kernel', (1, 0)),
  r'.*position_ids': None,
}


def save_weights(directory, kind):
  """Writes the weights; returns the path that a user would give."""
  if kind == 'npz':
    # NumPy does not know bfloat16.
    arrays = {k: np.asarray(v, np.float32) for k, v in WEIGHTS.items()}
    np.savez(directory / 'weights.npz', **arrays)
    return str(directory / 'weights.npz')
  if kind == 'sharded':
    files = {
      name: f'model-0000{i}.safetensors' for i, name in enumerate(WEIGHTS)
    }
    for name, file in files.items():
      safetensors.numpy.save_file({name: WEIGHTS[name]}, directory / file)
    index = directory / 'model.safetensors.index.json'
    index.write_text(json.dumps({'weight_map': files}))
    return str(directory)
  safetensors.numpy.save_file(WEIGHTS, directory / 'model.safetensors')
  return str(directory / ('model.safetensors' if kind == 'file' else ''))


@pytest.mark.parametrize('kind', ['file', 'directory', 'sharded', 'npz'])
def test_named_weights_become_a_tree(tmp_path, kind):
  path = save_weights(tmp_path, kind)
  expected = {
    f'Dense_{layer}': {'kernel': WEIGHTS[f'enc.layers.{layer}.weight'].T}
    for layer in (0, 1)
  }
  found = checkpoints.load_arrays(path, expected, names=NAMES)
  assert_same(found, expected)
  if kind != 'npz':
    assert found['Dense_1']['kernel'].dtype == jnp.bfloat16
  below = checkpoints.load_arrays(path, at='Dense_0', names=NAMES)
  assert_same(below, expected['Dense_0'])
  plain = checkpoints.load_arrays(path, at='enc/layers/0')
  assert_same(plain, {'weight': WEIGHTS['enc.layers.0.weight']})


@pytest.mark.parametrize(
  ('names', 'message'),
  [
    ({r'enc\.layers.*': 'a'}, "0.weight' and 'enc.layers.1.weight', both for"),
    ({r'.*0\.weight': 'a'}, '2 arrays that names= says nothing of, the first'),
    ({'(': 'a'}, 'is no regular expression'),
    ({r'.*\.(\w)\.weight': r'\2', '.*': None}, 'invalid group reference'),
    (
      {r'.*0\.weight': ('a', (0, 2)), '.*': None},
      'expected each of 0 to 1 once',
    ),
    (
      {r'.*0\.weight': 'a', r'.*1\.weight': 'a/b', '.*': None},
      'another one above or below',
    ),
  ],
)
def test_names_that_do_not_fit_are_refused(tmp_path, names, message):
  path = save_weights(tmp_path, 'file')
  with pytest.raises(errors.InputError, match=message):
    checkpoints.load_arrays(path, names=names)


@pytest.mark.parametrize(
  ('file', 'data', 'message'),
  [
    ('w.safetensors', b'', 'is no file of weights'),
    ('w.safetensors', b'\xff' * 64, 'is no file of weights'),
    ('w.npz', b'PK', 'is no file of weights'),
    ('w.safetensors.index.json', b'{}', 'is no index of safetensors'),
    (
      'w.safetensors.index.json',
      b'{"weight_map": {"a": "../secret.safetensors"}}',
      'expected NAME.safetensors beside it',
    ),
    (
      'w.safetensors.index.json',
      b'{"weight_map": {"a": "b.safetensors"}}',
      'b.safetensors is missing',
    ),
  ],
)
def test_damaged_weights_are_refused(tmp_path, file, data, message):
  (tmp_path / file).write_bytes(data)
  with pytest.raises(errors.InputError, match=message):
    checkpoints.load_arrays(str(tmp_path / file))


def test_truncated_weights_are_refused(tmp_path):
  path = pathlib.Path(save_weights(tmp_path, 'file'))
  path.write_bytes(path.read_bytes()[:-8])
  with pytest.raises(errors.InputError, match='is no file of weights'):
    checkpoints.load_arrays(str(path))


def test_pickled_weights_are_never_read(tmp_path):
  np.savez(tmp_path / 'w.npz', a=np.array([{}], object))
  with pytest.raises(errors.InputError, match='is no file of weights'):
    checkpoints.load_arrays(str(tmp_path / 'w.npz'))
