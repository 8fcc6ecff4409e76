"""What padding of sequences does to a loss, and what it costs."""

import collections
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from influence_core import errors, loss_contract, types
from influence_core.devices import parameter_layout
from pipeline.tasks import example_form, task as task_lib

# Examples drawn at random to tell what padding costs.
_NUM_MEASURED = 256


def check(
  task: task_lib.Task,
  params: types.Params,
  selected: types.SelectedParameters,
  form: example_form.ExampleForm,
  examples: Sequence[example_form.PreparedExample],
) -> None:
  """Refuses a loss that gives padding some weight.

  Args:
    task: the task.
    params: pytree of arrays.
    selected: those that gradients are taken for, by path.
    form: of the task's examples.
    examples: a few in this form, with finite losses.

  Raises:
    errors.InputError: Names an example, with its loss at both lengths.
  """
  if not task.sequences:
    return
  shortest = min(jnp.finfo(leaf.dtype).bits for leaf in selected.values())
  tolerance = (
    loss_contract.FLOAT32_TOLERANCE
    if shortest > 16
    else loss_contract.LOW_PRECISION_TOLERANCE
  )
  # The one that has most of it.
  example = max(examples, key=lambda one: _num_padding(form, one))
  own = form.features.lengths(example.features)
  padded = form.padded_lengths(example)
  evaluate = jax.jit(task.per_example_loss)
  placed = parameter_layout.fit_devices(params)
  found, expected = (
    float(evaluate(placed, form.stack([example], lengths))[0])
    for lengths in (padded, own)
  )
  if abs(found - expected) > tolerance * (1 + abs(expected)):
    raise errors.InputError(
      f'task {task.name}: the loss of {example.example_id} is {expected:.6g} '
      f'at its own length {_shown(own)} and {found:.6g} padded to '
      f'{_shown(padded)}; give padding no weight, with a mask among the '
      "task's sequences"
    )


def _num_padding(
  form: example_form.ExampleForm, example: example_form.PreparedExample
) -> int:
  """Places of an example's sequences that are padding."""
  own = form.features.lengths(example.features)
  return sum(form.padded_lengths(example)) - sum(own)


def describe(
  task: task_lib.Task, form: example_form.ExampleForm, seed: int = 0
) -> str | None:
  """What examples at random are padded to; None without sequences."""
  if not task.sequences:
    return None
  corpus = task.corpus
  count = min(_NUM_MEASURED, corpus.num_examples)
  positions = np.random.default_rng(seed).choice(
    corpus.num_examples, count, replace=False
  )
  counts: collections.Counter[tuple[int, ...]] = collections.Counter()
  num_padding = num_places = 0
  for example_id, raw in corpus.read_positions(np.sort(positions).tolist()):
    try:
      example = form.convert(example_form.prepare(task, example_id, raw))
    except example_form.UnusableExampleError:
      continue
    lengths = form.padded_lengths(example)
    counts[lengths] += 1
    num_padding += _num_padding(form, example)
    num_places += sum(lengths)
  used = sum(counts.values())
  if not used:
    return None
  shares = ', '.join(
    f'{_shown(lengths)} ({number / used:.0%})'
    for lengths, number in sorted(counts.items())
  )
  return (
    f'sequences are padded to {shares}: {num_padding / num_places:.0%} of '
    f'their places are padding, of {used} examples at random'
  )


def _shown(lengths: tuple[int, ...]) -> str:
  return ' and '.join(map(str, dict.fromkeys(lengths)))
