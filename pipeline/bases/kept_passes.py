"""Passes over a sample that were begun, kept beside the basis to go on from.

    PATH/passes/process-000/NAME-FINGERPRINT-000012.npz   sums over 12 blocks

A file is written when a minute has gone by, whole or not at all, and takes the
place of the one before. All are removed when the basis is stored.
"""

import json
import time

import jax
import numpy as np

from influence_core import errors, types
from influence_core.subspaces import factored_sample
from pipeline.bases import sample_blocks
from pipeline.storage import array_bytes, files as storage

_SECONDS_BETWEEN = 60
# Keys of an archive that are no sums.
_ABOUT = 'about'


class KeptPasses:
  """`factored_sample.PassKeeper` on storage, which tells of progress.

  Attributes:
    directory: of all processes.
  """

  def __init__(
    self,
    directory: str,
    blocks: sample_blocks.SampleBlocks,
    *,
    made_for: str,
    num_passes: int,
    progress: types.ProgressCallback,
  ):
    """Reads nothing yet.

    Args:
      directory: for the files of all processes.
      blocks: the sample; its rejected examples are kept with the sums.
      made_for: fingerprint of all that the sums depend on.
      num_passes: that there will be.
      progress: called with the number of blocks and all of them.
    """
    self.directory = directory
    self._own = storage.join(directory, f'process-{jax.process_index():03d}')
    self._blocks = blocks
    self._made_for = f'{made_for[:16]}-{jax.process_count()}'
    self._num_passes = num_passes
    self._progress = progress
    self._started: list[str] = []
    self._kept_at = time.monotonic()

  def load(self, name: str) -> factored_sample.PassState:
    """See `PassKeeper`.

    Raises:
      errors.InputError: What was kept is damaged.
    """
    self._started.append(name)
    self._kept_at = time.monotonic()
    state = self._found(name)
    self._tell(state)
    return state

  def _found(self, name: str) -> factored_sample.PassState:
    found = self._files(name)
    if not found:
      return factored_sample.PassState(0, 0, {})
    path = storage.join(self._own, found[-1])
    try:
      arrays = array_bytes.read_npz(path)
      about = json.loads(arrays.pop(_ABOUT).tobytes())
    except (ValueError, KeyError, storage.DamagedFileError) as error:
      raise errors.InputError(
        f'{path} is damaged, expected sums of a pass over the sample; delete '
        'it to begin the pass anew'
      ) from error
    self._blocks.rejected |= about['rejected']
    return factored_sample.PassState(
      about['num_blocks'], about['num_examples'], arrays
    )

  def keep(self, name: str, state: factored_sample.PassState) -> None:
    """See `PassKeeper`."""
    self._tell(state)
    if time.monotonic() - self._kept_at < _SECONDS_BETWEEN:
      return
    about = {
      'num_blocks': state.num_blocks,
      'num_examples': state.num_examples,
      'rejected': self._blocks.rejected,
    }
    packed = np.frombuffer(json.dumps(about).encode(), np.uint8)
    data = array_bytes.encode_npz({**state.sums, _ABOUT: packed})
    older = self._files(name)
    new = f'{name}-{self._made_for}-{state.num_blocks:06d}.npz'
    storage.create_exclusive(storage.join(self._own, new), data)
    for other in older:
      if other != new:
        storage.remove(storage.join(self._own, other))
    self._kept_at = time.monotonic()

  def _tell(self, state: factored_sample.PassState) -> None:
    before = (len(self._started) - 1) * len(self._blocks)
    self._progress(
      before + state.num_blocks, self._num_passes * len(self._blocks)
    )

  def _files(self, name: str) -> list[str]:
    """Of a pass, that of the fewest blocks first."""
    names = storage.list_names(self._own)
    return sorted(x for x in names if x.startswith(f'{name}-{self._made_for}-'))
