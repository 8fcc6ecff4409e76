"""Trains any example in memory: Adam, cosine schedule, checkpoints by epoch."""

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from influence_core import errors, types
from launch.example_tasks import example
from pipeline import Task, load_arrays, save_arrays, sum_checkpoints
from pipeline.storage import files as storage

# Loss of a batch in training: (params, features, random key) -> [batch].
TrainingLoss = Callable[[types.Params, types.Features, jax.Array], jax.Array]
# Called with the number of epochs done and the parameters, after each.
SaveCallback = Callable[[int, types.Params], None]

_NUM_KEPT = 4


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How long, and how fast.

  Attributes:
    num_epochs: passes over the examples.
    batch_size: examples of a step.
    learning_rate: peak; it warms up for a twentieth of the steps.
    seed: of order and dropout.
  """

  num_epochs: int
  batch_size: int
  learning_rate: float
  seed: int

  def __post_init__(self):
    errors.check_at_least_one(
      num_epochs=self.num_epochs, batch_size=self.batch_size
    )


def fit(
  params: types.Params,
  features: types.Features,
  loss: TrainingLoss,
  schedule: Schedule,
  *,
  save: SaveCallback | None = None,
  progress: types.ProgressCallback = types.no_progress,
) -> types.Params:
  """Minimises the mean loss.

  Args:
    params: to start from.
    features: pytree of [num_examples, ...] arrays, all of the corpus.
    loss: of a batch.
    schedule: see there.
    save: called after each epoch.
    progress: called with steps done and in all.

  Returns:
    Trained parameters, on the host.
  """
  size = len(jax.tree.leaves(features)[0])
  batch_size = min(schedule.batch_size, size)
  steps_per_epoch = size // batch_size
  num_steps = schedule.num_epochs * steps_per_epoch
  # A single step has nothing to warm up for.
  num_warmup = min(max(1, num_steps // 20), num_steps - 1)
  optimizer = optax.adam(
    optax.warmup_cosine_decay_schedule(
      0.0, schedule.learning_rate, num_warmup, num_steps
    )
  )

  @jax.jit
  def step(params, state, batch, key):
    def mean_loss(params):
      return jnp.mean(loss(params, batch, key))

    updates, state = optimizer.update(jax.grad(mean_loss)(params), state)
    return optax.apply_updates(params, updates), state

  state = optimizer.init(params)
  generator = np.random.default_rng(schedule.seed)
  keys = jax.random.split(jax.random.key(schedule.seed), num_steps)
  num_done = 0
  for epoch in range(schedule.num_epochs):
    order = generator.permutation(size)
    for number in range(steps_per_epoch):
      rows = order[number * batch_size : (number + 1) * batch_size]
      batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], features)
      params, state = step(params, state, batch, keys[num_done])
      num_done += 1
      progress(num_done, num_steps)
    if save is not None:
      save(epoch + 1, jax.device_get(params))
  return jax.device_get(params)


def epoch_path(workdir: str, epoch: int) -> str:
  """Where the parameters after an epoch are."""
  return storage.join(example.epochs_path(workdir), f'{epoch:03d}')


def save_epochs(workdir: str, num_epochs: int) -> SaveCallback:
  """For `fit`: keeps the last parameters and some before, evenly spread."""
  kept = _kept_epochs(num_epochs)

  def save(epoch: int, params: types.Params) -> None:
    if epoch in kept:
      save_arrays(epoch_path(workdir, epoch), params)

  return save


def _kept_epochs(num_epochs: int) -> list[int]:
  spread = np.linspace(1, num_epochs, min(_NUM_KEPT, num_epochs))
  return sorted({round(x) for x in spread})


def with_epochs(
  task: Task,
  workdir: str,
  *,
  which: str,
  num_epochs: int,
  like: types.Params,
) -> Task:
  """The task after the last epoch or another, or summed over several.

  Args:
    task: after the last.
    workdir: where checkpoints are kept.
    which: 'last', 'all' that were kept, or one of them by its number.
    num_epochs: of the training; a directory may hold epochs of one before,
      which was interrupted.
    like: shapes of the parameters.

  Raises:
    errors.InputError: `which` is none of these.
  """
  if which == 'last':
    return task
  kept = _kept_epochs(num_epochs)

  def load(epoch: int) -> types.Params:
    return load_arrays(epoch_path(workdir, epoch), like=like)

  if which in map(str, kept):
    return dataclasses.replace(
      task, load_parameters=functools.partial(load, int(which))
    )
  if which != 'all':
    raise errors.InputError(
      f'epochs is {which!r}, expected last, all or one of '
      f'{", ".join(map(str, kept))}'
    )
  return sum_checkpoints(
    task,
    {f'{epoch:03d}': functools.partial(load, epoch) for epoch in kept},
  )
