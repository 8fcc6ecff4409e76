"""An Arnoldi iteration on storage: every vector durable before the next begins.

    DIRECTORY/config.json          what the iteration is; it must not change
    DIRECTORY/vector-00007.bin     this process's columns of a Krylov vector
    DIRECTORY/state-000007.json    all else after product 7, names its vectors

A state is written when its vectors are durable, so whatever is killed, the last
state is whole. Each process has a directory of its own. The two latest states
are kept, since processes may be killed a step apart.
"""

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from influence_core import errors
from influence_core.eigenpairs import arnoldi, krylov_vectors
from pipeline.bases.vector_files import VectorFiles
from pipeline.storage import checked_files, files as storage, fingerprints

_NUM_KEPT_STATES = 2
# Of states; another one is not gone on with.
_FORMAT = 2


class KrylovFiles:
  """An iteration on storage.

  Attributes:
    directory: of this process.
    vectors: its Krylov vectors, as of the last state.
  """

  def __init__(self, directory: str, num_columns: int, dtype: np.dtype):
    """Begins without vectors; see `VectorFiles` for the arguments."""
    self.vectors = VectorFiles(directory, num_columns, dtype)
    self.directory = self.vectors.directory

  def mirror(
    self, vectors: krylov_vectors.KrylovVectors, state: arnoldi.ArnoldiState
  ) -> None:
    """Brings the files up to vectors that are kept elsewhere."""
    files = self.vectors
    if state.num_vectors < len(files):  # After a restart nothing is the same.
      files.clear()
    for number in range(len(files), state.num_vectors):
      row = np.asarray(vectors.vector(number)).reshape(-1)
      files.append(row.astype(files.dtype))

  def save_state(self, state: arnoldi.ArnoldiState) -> None:
    """Makes the state durable, then removes what no kept state needs."""
    content = {
      **self.vectors.to_json(),
      # As text it would take longer to write than a step takes.
      'hessenberg': base64.b64encode(
        state.hessenberg.astype('<f8').tobytes()
      ).decode(),
      'rounding': state.rounding.tolist(),
      'num_products': state.num_products,
      'scale': state.scale,
      'broke_down': state.broke_down,
    }
    path = self._state_path(state.num_products)
    if storage.create_exclusive(path, checked_files.encode_json(content)):
      self._remove_unneeded()

  def newest(self) -> int:
    """Products done at the last state; -1 if there is none."""
    return max(self._states(), default=-1)

  def load_state(self, num_products: int) -> arnoldi.ArnoldiState:
    """Goes back to a state that is there, and to its vectors.

    Raises:
      storage.DamagedFileError: Something of it is damaged.
    """
    content = checked_files.read_json(self._state_path(num_products))
    self.vectors.go_back(content)
    for number in self._states():
      if number > num_products:
        storage.remove(self._state_path(number))
    hessenberg = np.frombuffer(
      base64.b64decode(content['hessenberg']), '<f8'
    ).copy()
    columns = len(content['rounding'])
    return arnoldi.ArnoldiState(
      hessenberg.reshape(columns + 1, columns),
      np.array(content['rounding'], np.float64),
      content['num_products'],
      content['scale'],
      content['broke_down'],
    )

  def claim(self, config: Mapping[str, Any]) -> None:
    """Says what iteration this is, or checks that it is the same.

    Raises:
      errors.InputError: Another iteration is kept here.
    """
    path = storage.join(self.directory, 'config.json')
    config = {**config, 'format': _FORMAT}
    if storage.create_exclusive(path, checked_files.encode_json(config)):
      return
    if difference := fingerprints.first_difference(
      checked_files.read_json(path), config
    ):
      name, found, value = difference
      raise errors.InputError(
        f'{self.directory} holds an unfinished iteration with {name} {found}, '
        f'not {value}; finish it with the same options, or delete the directory'
      )

  def remove(self) -> None:
    """Deletes the iteration."""
    storage.remove_directory(self.directory)

  def _state_path(self, num_products: int) -> str:
    return storage.join(self.directory, f'state-{num_products:06d}.json')

  def _states(self) -> list[int]:
    return [
      int(name.removeprefix('state-').removesuffix('.json'))
      for name in storage.list_names(self.directory)
      if name.startswith('state-') and name.endswith('.json')
    ]

  def _remove_unneeded(self) -> None:
    states = sorted(self._states())
    kept, old = states[-_NUM_KEPT_STATES:], states[:-_NUM_KEPT_STATES]
    for number in old:
      storage.remove(self._state_path(number))
    needed: set[str] = set()
    for number in kept:
      rows = checked_files.read_json(self._state_path(number))['rows']
      needed |= {row['name'] for row in rows}
    self.vectors.remove_all_but(needed)
