"""An Arnoldi iteration on storage: every vector durable before the next begins.

    DIRECTORY/config.json          what the iteration is; it must not change
    DIRECTORY/vector-00007.bin     this process's columns of a Krylov vector
    DIRECTORY/state-000007.json    all else after product 7, names its vectors

A state is written when its vectors are durable, so whatever is killed, the last
state is whole. Each process has a directory of its own. The two latest states
are kept, since processes may be killed a step apart.

They stay when a basis ends in NO-GO, which is fitted further from them.
"""

import base64
from collections.abc import Mapping
import dataclasses
from typing import Any

import numpy as np

from influence_core import errors
from influence_core.eigenpairs import arnoldi, krylov_vectors
from pipeline.bases import vector_files
from pipeline.storage import (
  checked_files,
  files as storage,
  fingerprints,
  stored_objects,
)

_NUM_KEPT_STATES = 2
# Of states; another one is not gone on with.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class _State(vector_files.KeptVectors):
  """All of an iteration; see `arnoldi.ArnoldiState`."""

  # As text it would take longer to write than a step takes.
  hessenberg: str
  rounding: tuple[float, ...]
  num_products: int
  scale: float
  broke_down: bool

  def __post_init__(self):
    super().__post_init__()
    columns = len(self.rounding)
    expected = 8 * columns * (columns + 1)
    if len(base64.b64decode(self.hessenberg)) != expected:
      raise ValueError(f'hessenberg is not of {expected} bytes')

  @classmethod
  def of(
    cls, vectors: vector_files.KeptVectors, state: arnoldi.ArnoldiState
  ) -> '_State':
    return cls(
      vectors.rows,
      vectors.next,
      base64.b64encode(state.hessenberg.astype('<f8').tobytes()).decode(),
      tuple(state.rounding.tolist()),
      state.num_products,
      state.scale,
      state.broke_down,
    )

  def to_iteration(self) -> arnoldi.ArnoldiState:
    columns = len(self.rounding)
    hessenberg = np.frombuffer(base64.b64decode(self.hessenberg), '<f8').copy()
    return arnoldi.ArnoldiState(
      hessenberg.reshape(columns + 1, columns),
      np.array(self.rounding, np.float64),
      self.num_products,
      self.scale,
      self.broke_down,
    )


class KrylovFiles:
  """An iteration on storage.

  Attributes:
    directory: of this process.
    vectors: its Krylov vectors, as of the last state.
  """

  def __init__(self, directory: str, num_columns: int, dtype: np.dtype):
    """Begins without vectors; see `VectorFiles` for the arguments."""
    self.vectors = vector_files.VectorFiles(directory, num_columns, dtype)
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
    content = dataclasses.asdict(_State.of(self.vectors.kept(), state))
    path = _state_path(self.directory, state.num_products)
    if storage.create_exclusive(path, checked_files.encode_json(content)):
      self._remove_unneeded()

  def load_state(self, num_products: int) -> arnoldi.ArnoldiState:
    """Goes back to a state that is there, and to its vectors.

    Raises:
      storage.DamagedFileError: Something of it is damaged.
    """
    state = _read_state(self.directory, num_products)
    self.vectors.go_back(state)
    self.forget_after(num_products)
    return state.to_iteration()

  def forget_after(self, num_products: int) -> None:
    """Deletes later states, which not all processes have."""
    for number in _states(self.directory):
      if number > num_products:
        storage.remove(_state_path(self.directory, number))

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
        f'{self.directory} holds an iteration with {name} {found}, not '
        f'{value}; go on with the same options, pass another --work_dir, or '
        'delete the directory'
      )

  def _remove_unneeded(self) -> None:
    states = sorted(_states(self.directory))
    kept, old = states[-_NUM_KEPT_STATES:], states[:-_NUM_KEPT_STATES]
    for number in old:
      storage.remove(_state_path(self.directory, number))
    needed: set[str] = set()
    for number in kept:
      rows = _read_state(self.directory, number).rows
      needed |= {row.name for row in rows}
    self.vectors.remove_all_but(needed)


def newest_state(directory: str) -> int:
  """Products done at the last state in a directory; -1 if there is none."""
  return max(_states(directory), default=-1)


def num_vectors(directory: str, num_products: int) -> int:
  """Krylov vectors of a state that is there.

  Raises:
    storage.DamagedFileError: It is damaged.
  """
  return len(_read_state(directory, num_products).rows)


def _read_state(directory: str, num_products: int) -> _State:
  path = _state_path(directory, num_products)
  return stored_objects.parse(_State, checked_files.read_json(path), path)


def _state_path(directory: str, num_products: int) -> str:
  return storage.join(directory, f'state-{num_products:06d}.json')


def _states(directory: str) -> list[int]:
  return [
    int(name.removeprefix('state-').removesuffix('.json'))
    for name in storage.list_names(directory)
    if name.startswith('state-') and name.endswith('.json')
  ]
