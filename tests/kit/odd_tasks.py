"""The ridge regression with what users' tasks do besides: see `make_task`."""

from __future__ import annotations

import dataclasses
import datetime
import sys
from typing import TYPE_CHECKING, Any, Literal

from flax import nnx, struct
import jax
import jax.numpy as jnp
import numpy as np

from pipeline import ID_KEY, SplitLoss
from tests.kit import linear_task

if TYPE_CHECKING:
  from collections.abc import Sequence


def make_task(
  workdir: str,
  columns: str = 'plain',
  numbers: str = 'plain',
  loss: str = 'plain',
  parameters: str = 'plain',
  split: str = 'plain',
  unused: Sequence[int] | None = None,
):
  """The task with one of the oddities below; examples are `__0`, `__1`, ..."""
  del unused
  task = linear_task.make_task(workdir)
  return dataclasses.replace(
    task,
    row_columns=lambda raw: COLUMNS[columns](number_of(raw), raw),
    preprocess=lambda raw: NUMBERS[numbers](number_of(raw), raw),
    per_example_loss=LOSSES[loss],
    load_parameters=lambda: PARAMETERS[parameters](task.load_parameters()),
    split_loss=SPLIT_LOSSES[split],
  )


def number_of(raw) -> int:
  return int(raw[ID_KEY].rpartition('__')[2])


def failing(*args):
  raise ValueError('no such thing')


# (number in its file, raw example) -> row.
COLUMNS = {
  'plain': lambda i, raw: {'half': int(raw['y'] > 0)},
  'all_kinds': lambda i, raw: {
    'bytes': b'zwei Hunde',
    'text': np.str_('zwei'),
    'truth': np.bool_(i % 2),
    'small': np.int8(i % 100),
    'array': np.asarray(i),
    'day': np.datetime64('2026-01-01') + i,
    'month': np.datetime64('2026-01'),
    'hour': np.datetime64('2026-01-01T03'),
    'nanoseconds': np.datetime64('2026-01-01T00:00:01', 'ns'),
    'never': np.datetime64('NaT'),
    'time': datetime.datetime(2026, 1, 1, 2, 3),
    'zone': datetime.datetime(2026, 1, 1, 2, 3, tzinfo=datetime.UTC),
    'missing': None if i % 2 else 1.5,
    'nan': float('nan') if i % 3 else float('inf'),
  },
  'whole_floats': lambda i, raw: {'score': 1 if i == 50 else 1.5},
  'float_among_integers': lambda i, raw: {'score': 2.5 if i == 50 else 2},
  'whole_float_among_integers': lambda i, raw: {'score': 2.0 if i == 50 else 2},
  'text_among_integers': lambda i, raw: {'score': 'x' if i == 50 else 2},
  'more': lambda i, raw: {'a': 1, 'b': 2} if i == 50 else {'a': 1},
  'fewer': lambda i, raw: {'a': 1} if i == 50 else {'a': 1, 'b': 2},
  'late': lambda i, raw: {'a': None if i < 50 else 7},
  'image': lambda i, raw: {'image': raw['x']},
  'one_image': lambda i, raw: {'a': raw['x'] if i == 50 else 1},
  'nothing': lambda i, raw: None,
  'own': lambda i, raw: {'loss': 1.0},
  'other_type': lambda i, raw: {'half': float(raw['y'])},
}


def weighted(weight):
  return lambda i, raw: {'x': raw['x'], 'y': raw['y'], 'weight': weight(i)}


# (number in its file, raw example) -> features.
NUMBERS = {
  'plain': lambda i, raw: {'x': raw['x'], 'y': raw['y']},
  # Whole batches of 8 have integers, others floats.
  'mixed': weighted(lambda i: 1.5 if i // 8 % 2 == 0 else 1),
  'floats': weighted(lambda i: 1.5 if i // 8 % 2 == 0 else 1.0),
  'lossy': weighted(lambda i: 1.5 if i == 50 else 1),
  'long': lambda i, raw: {
    'x': np.resize(raw['x'], 6 if i == 50 else 5),
    'y': raw['y'],
  },
  'first_long': lambda i, raw: {
    'x': np.resize(raw['x'], 6 if i == 0 else 5),
    'y': raw['y'],
  },
  'fewer': lambda i, raw: {'x': raw['x'], **({} if i == 50 else {'y': 1.0})},
  'text': lambda i, raw: {'x': raw['x'], 'y': 'text'},
  'bad_start': lambda i, raw: (
    failing() if i in (0, 2) else {'x': raw['x'], 'y': raw['y']}
  ),
  'all_bad': failing,
  'nan_start': lambda i, raw: {
    'x': raw['x'] * (np.nan if i < 5 else 1),
    'y': raw['y'],
  },
  'infinite_slope': lambda i, raw: {
    'x': raw['x'] * (0 if i == 50 else 1),
    'y': raw['y'],
  },
  'infinite_start': lambda i, raw: {
    'x': raw['x'] * (0 if i < 5 else 1),
    'y': raw['y'],
  },
  'without_numbers': lambda i, raw: {
    'x': raw['x'],
    'y': raw['y'],
    'empty': np.zeros((2, 0), np.float32),
  },
  'lists': lambda i, raw: {'x': raw['x'].tolist(), 'y': raw['y']},
  'changed_in_place': lambda i, raw: {'x': halved(raw), 'y': raw.pop('y')},
  'random': lambda i, raw: {
    'x': raw['x'] + np.random.default_rng().normal(size=5),
    'y': raw['y'],
  },
  'enormous': lambda i, raw: {
    'x': np.broadcast_to(np.float32(1), (10**6, 10**6)),
    'y': raw['y'],
  },
  'leaving': lambda i, raw: sys.exit(0),
}


def halved(raw):
  """As `image /= 255` does, where the raw example has it."""
  raw['x'] /= 2
  return raw['x']


def plain_loss(params, features):
  losses = linear_task.per_example_loss(params, features)
  return losses * features['weight'] if 'weight' in features else losses


class Counter(nnx.Module):
  """Counts its calls, as layers with running averages do."""

  def __init__(self):
    self.calls = nnx.Variable(jnp.array(0.0))


COUNTER = Counter()


def mutating(params, features):
  COUNTER.calls[...] += 1.0
  return plain_loss(params, features)


def with_root(params, features):
  """Whose gradient is not finite where all of x is zero, though the loss is."""
  root = jnp.sqrt(jnp.abs(features['x'] @ params['weights']))
  return plain_loss(params, features) + root


def once_differentiable(params, features):
  """Has a gradient from its rule, which has none."""
  square = jax.custom_vjp(lambda x: 0.5 * jnp.square(x))
  square.defvjp(
    lambda x: (0.5 * jnp.square(x), x),
    lambda x, cotangent: (jax.pure_callback(np.asarray, x, x) * cotangent,),
  )
  return square(linear_task.outputs(params, features) - features['y'])


LOSSES = {
  'plain': plain_loss,
  'once_differentiable': once_differentiable,
  'stopped': lambda p, f: jax.lax.stop_gradient(plain_loss(p, f)),
  'host_only': lambda p, f: jnp.asarray([float(x) for x in plain_loss(p, f)]),
  'mutating': mutating,
  'tokens': lambda p, f: plain_loss(p, f)[:, None] * jnp.ones(7),
  'root': with_root,
}


# The same loss in two parts.
SPLIT_LOSSES = {
  'plain': SplitLoss(linear_task.outputs, linear_task.output_loss),
  'failing': SplitLoss(lambda p, f: f['absent'], linear_task.output_loss),
  'another': SplitLoss(
    linear_task.outputs, lambda o, f: jnp.square(o - f['y'])
  ),
}


@struct.dataclass
class Parameters:
  """What a model may keep beside its weights."""

  weights: jax.Array
  bias: jax.Array
  key: jax.Array
  steps: int

  def __getitem__(self, name):
    return getattr(self, name)


PARAMETERS = {
  'plain': lambda p: p,
  'dataclass': lambda p: Parameters(
    p['weights'], p['bias'], jax.random.key(0), 3
  ),
  'text': lambda p: {**p, 'activation': 'relu'},
  'failing': failing,
  'without_numbers': lambda p: {**p, 'unused': np.zeros((0, 3), np.float32)},
  'bfloat16': lambda p: jax.tree.map(
    lambda leaf: jnp.asarray(leaf, jnp.bfloat16), p
  ),
}


def with_more(workdir: str, *rest: int, **more: str):
  del rest
  assert more == {'flavour': 'sweet'}
  return linear_task.make_task(workdir)


def with_types(
  workdir: str,
  num: int | None = 1,
  rate: float | str = 0.5,
  kind: Literal['a', 'b'] = 'a',
  anything: Any = None,
):
  """Tells what it got as its name."""
  task = linear_task.make_task(workdir)
  return dataclasses.replace(task, name=repr((num, rate, kind, anything)))


def that_prints(workdir: str):
  print('made a task')
  return linear_task.make_task(workdir)


def that_leaves(workdir: str):
  sys.exit(0)


def that_fails(workdir: str):
  return {}[workdir]
