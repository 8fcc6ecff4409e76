"""Random samples of a corpus, fixed, read once, disjoint; their curvature."""

from collections.abc import Iterator
import dataclasses
import json

import jax
import numpy as np

from influence_core import errors, parameter_selection, types
from influence_core.curvature import (
  finite_examples,
  operator as curvature_operator,
)
from influence_core.devices import memory as device_memory, multi_device
from pipeline.bases import sample_blocks
from pipeline.index import choices as index_choices, rejected_examples
from pipeline.tasks import example_batches, loaded_task, sequence_lengths


class CurvatureSamples:
  """Samples drawn by one seed; each process reads its own part of them.

  Attributes:
    size: examples of a sample, over all processes.
    rejected: reason by id of the examples that were left out of what was read,
      by all processes.
  """

  def __init__(
    self,
    loaded: loaded_task.LoadedTask,
    sample_size: int,
    seed: int,
    *,
    max_rejected_fraction: float = index_choices.MAX_REJECTED_FRACTION,
    memory_budget_bytes: int | None = None,
  ):
    """Draws nothing yet.

    Args:
      loaded: the task.
      sample_size: examples of a sample, at most as many as the corpus has.
      seed: of the choice.
      max_rejected_fraction: of a sample; more unusable examples are an error.
      memory_budget_bytes: memory to use on a device; None for most of it.
    """
    index_choices.check_rejected_fraction(max_rejected_fraction)
    self.rejected: dict[str, str] = {}
    self._loaded = loaded
    self._seed = seed
    self.size = min(sample_size, loaded.task.corpus.num_examples)
    self._max_rejected_fraction = max_rejected_fraction
    self._is_finite = finite_examples.FiniteExamples(
      loaded.task.per_example_loss,
      loaded.params,
      selected=loaded.selected,
      memory_budget_bytes=memory_budget_bytes,
    )
    # By id: blocks are read once in each pass.
    self._known: dict[str, bool] = {}

  def first(self) -> types.Features:
    """The sample itself: [num_examples, ...] of this process.

    Raises:
      errors.InputError: None of its examples can be used, or too few.
    """
    return self._read(self._first_positions())

  def second(self) -> types.Features:
    """As many examples that are not in the first one.

    Raises:
      errors.InputError: See `check_second`, or too many examples cannot be
        used.
    """
    self.check_second()
    # So many others that enough are left when those of the first are removed.
    positions = self._positions([self._seed, 1], 2 * self.size)
    others = positions[~np.isin(positions, self._first_positions())]
    return self._read(others[: self.size])

  def blocks(self) -> sample_blocks.SampleBlocks:
    """The sample block by block, each read when it is asked for.

    `finish_blocks` is to be called when all were read.
    """
    return sample_blocks.SampleBlocks(
      self._read_usable,
      self._own(self._first_positions()),
      size=sample_blocks.choose_size(
        parameter_selection.num_parameters(self._loaded.selected)
      ),
      sample_size=self.size,
      max_rejected_fraction=self._max_rejected_fraction,
    )

  @property
  def num_used(self) -> int:
    """Examples of the first sample, over all processes, once it was read."""
    return self.size - len(self.rejected)

  def finish_blocks(self, blocks: sample_blocks.SampleBlocks) -> None:
    """Notes what was left out of blocks, in all processes.

    Raises:
      errors.InputError: None of the examples can be used, or too few.
    """
    self._note(blocks.rejected, self.size)

  def check_second(self) -> None:
    """Raises `errors.InputError` if the corpus is too small for two samples."""
    num_examples = self._loaded.task.corpus.num_examples
    if 2 * self.size > num_examples:
      raise errors.InputError(
        f'the corpus has {num_examples} examples, too few for two samples of '
        f'{self.size}; choose a smaller --sample_size or leave out '
        '--check_sample'
      )

  def _first_positions(self) -> np.ndarray:
    return self._positions(self._seed, self.size)

  def _positions(self, seed, count: int) -> np.ndarray:
    num_examples = self._loaded.task.corpus.num_examples
    return np.random.default_rng(seed).choice(
      num_examples, count, replace=False
    )

  def _own(self, positions: np.ndarray) -> np.ndarray:
    """Positions that this process reads."""
    return np.sort(positions)[jax.process_index() :: jax.process_count()]

  def _read(self, positions: np.ndarray) -> types.Features:
    own = self._own(positions)
    self._check_size(len(own))
    batch = self._loaded.preprocess_batch(
      self._loaded.task.corpus.read_positions(own.tolist())
    )
    if batch.ids:
      batch = self._finite(batch)
    self._note(batch.rejected, len(positions))
    return self._as_long_everywhere(batch.features)

  def _read_usable(
    self, positions: np.ndarray
  ) -> Iterator[example_batches.ExampleBatch]:
    """Examples of the same shapes together."""
    raw = self._loaded.task.corpus.read_positions(positions.tolist())
    for batch in self._loaded.preprocess_by_length(raw, len(positions)):
      yield self._finite(batch) if batch.ids else batch

  def _note(self, rejected: dict[str, str], num_read: int) -> None:
    """What was left out: all processes look at it, and go on or fail together.

    Args:
      rejected: reason by id, of this process.
      num_read: examples of all processes.
    """
    own = len(self._own(np.arange(num_read)))
    has_none = multi_device.any_process(len(rejected) >= own)
    rejected = _of_all_processes(rejected)
    rejected_examples.check_sample_fraction(
      rejected, num_read, self._max_rejected_fraction
    )
    if has_none:
      example_id, reason = next(
        iter(rejected.items()), ('none', 'the sample is too small')
      )
      raise errors.InputError(
        f'none of {own} sampled examples can be used; the first is '
        f'{example_id} ({reason})'
      )
    self.rejected |= rejected

  def _as_long_everywhere(self, features: types.Features) -> types.Features:
    """With sequences as long as the longest that any process has."""
    form = self._loaded.form.features
    lengths = form.lengths(features, axis=1)
    longest = [multi_device.largest_over_processes(x) for x in lengths]
    return form.pad(features, longest, axis=1)

  def _check_size(self, count: int) -> None:
    """Refuses a sample that does not fit memory, examples and their stack."""
    features = self._loaded.checked_features
    known = multi_device.num_examples(features)
    leaves = jax.tree.leaves(features)
    device_memory.check_host_memory(
      2 * count * sum(leaf.nbytes for leaf in leaves) / known,
      f'{count:,} sampled examples',
      'pass a smaller --sample_size',
    )

  def _finite(
    self, batch: example_batches.ExampleBatch
  ) -> example_batches.ExampleBatch:
    """Without examples that would make every product meaningless."""
    new = [n for n, name in enumerate(batch.ids) if name not in self._known]
    if new:
      found = self._is_finite(
        example_batches.take_examples(batch, np.array(new)).features
      )
      names = (batch.ids[n] for n in new)
      self._known.update(zip(names, found.tolist(), strict=True))
    finite = np.array([self._known[name] for name in batch.ids])
    if finite.all():
      return batch
    bad = [batch.ids[place] for place in np.flatnonzero(~finite)]
    good = example_batches.take_examples(batch, np.flatnonzero(finite))
    reasons = dict.fromkeys(bad, rejected_examples.NOT_FINITE)
    return good._replace(rejected=batch.rejected | reasons)


def _of_all_processes(rejected: dict[str, str]) -> dict[str, str]:
  parts = multi_device.gather_bytes(json.dumps(rejected).encode())
  return {
    example_id: reason
    for part in parts
    for example_id, reason in json.loads(part).items()
  }


def make_operator(
  loaded: loaded_task.LoadedTask,
  sample: types.Features,
  options: curvature_operator.CurvatureOptions,
) -> curvature_operator.CurvatureOperator:
  """The curvature of a task's loss, of the selected parameters.

  Args:
    loaded: the task.
    sample: this process's examples that it is the mean over.
    options: what matrix, and how; l2_weight is that of the task, whatever they
      say.

  Raises:
    errors.InputError: See `CurvatureOperator`, or the split loss is wrong.
  """
  if options.curvature == 'gauss_newton':
    loaded.check_split_loss()
  return curvature_operator.CurvatureOperator(
    loaded.task.per_example_loss,
    loaded.params,
    sample=sample,
    parameter_paths=loaded.task.parameter_paths,
    split_loss=loaded.task.split_loss,
    options=dataclasses.replace(options, l2_weight=loaded.task.l2_weight),
  )


def num_used(sample: types.Features) -> int:
  """Examples of a sample over all processes."""
  own = np.array(float(multi_device.num_examples(sample)))
  return int(multi_device.sum_over_processes(own))


def join(one: types.Features, other: types.Features) -> types.Features:
  """Both samples as one, sequences as long as the longest."""

  def joined(*leaves: np.ndarray) -> np.ndarray:
    if leaves[0].ndim > 1:
      longest = max(leaf.shape[1] for leaf in leaves)
      leaves = tuple(sequence_lengths.pad(x, longest, axis=1) for x in leaves)
    return np.concatenate(leaves)

  return jax.tree.map(joined, one, other)
