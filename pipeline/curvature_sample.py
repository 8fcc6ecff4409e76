"""Random samples of a corpus for the curvature: fixed, read once, disjoint."""

import jax
import numpy as np

from influence_core import device_memory, errors, multi_device, types
from pipeline import loaded_task


class CurvatureSamples:
  """Samples drawn by one seed; each process reads its own part of them."""

  def __init__(
    self, loaded: loaded_task.LoadedTask, sample_size: int, seed: int
  ):
    """Draws nothing yet.

    Args:
      loaded: the task.
      sample_size: examples of a sample, at most as many as the corpus has.
      seed: of the choice.
    """
    self._loaded = loaded
    self._seed = seed
    self._size = min(sample_size, loaded.task.corpus.num_examples)

  def first(self) -> types.Features:
    """The sample itself: [num_examples, ...] of this process.

    Raises:
      errors.InputError: None of its examples can be used.
    """
    return self._read(self._first_positions())

  def second(self) -> types.Features:
    """As many examples that are not in the first one.

    Raises:
      errors.InputError: The corpus has too few examples.
    """
    corpus = self._loaded.task.corpus
    if 2 * self._size > corpus.num_examples:
      raise errors.InputError(
        f'the corpus has {corpus.num_examples} examples, too few for two '
        f'samples of {self._size}; choose a smaller --sample_size or leave out '
        '--check_sample'
      )
    # So many others that enough are left when those of the first are removed.
    positions = self._positions([self._seed, 1], 2 * self._size)
    others = positions[~np.isin(positions, self._first_positions())]
    return self._read(others[: self._size])

  def _first_positions(self) -> np.ndarray:
    return self._positions(self._seed, self._size)

  def _positions(self, seed, count: int) -> np.ndarray:
    num_examples = self._loaded.task.corpus.num_examples
    return np.random.default_rng(seed).choice(
      num_examples, count, replace=False
    )

  def _read(self, positions: np.ndarray) -> types.Features:
    own = np.sort(positions)[jax.process_index() :: jax.process_count()]
    self._check_size(len(own))
    batch = self._loaded.preprocess_batch(
      self._loaded.task.corpus.read_positions(own.tolist())
    )
    if not batch.ids:
      example_id, reason = next(
        iter(batch.rejected.items()), ('none', 'the sample is too small')
      )
      raise errors.InputError(
        f'none of {len(own)} sampled examples can be used; the first is '
        f'{example_id} ({reason})'
      )
    return batch.features

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


def num_used(sample: types.Features) -> int:
  """Examples of a sample over all processes."""
  own = np.array(float(multi_device.num_examples(sample)))
  return int(multi_device.sum_over_processes(own))


def joined(one: types.Features, other: types.Features) -> types.Features:
  """Both samples as one."""
  return jax.tree.map(lambda *leaves: np.concatenate(leaves), one, other)
