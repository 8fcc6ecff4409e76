"""Files of weights from elsewhere: read, or refused in one line.

Nothing that they say is run, and no more memory taken than they have bytes.
"""

import json
import pathlib
import tempfile
import tracemalloc

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest
import safetensors.numpy

from influence_core import errors
from pipeline import load_arrays

WEIGHTS = {
  'layer.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
  'layer.bias': np.ones(3, np.int8),
}
SOUND = safetensors.numpy.save(WEIGHTS, {'format': 'pt'})
_LENGTH_BYTES = 8
HEADER_BYTES = _LENGTH_BYTES + int.from_bytes(SOUND[:_LENGTH_BYTES], 'little')
# Of a process that reads a file of a few bytes, with room for its messages.
FEW_BYTES = 2 << 20

VALUES = st.recursive(
  st.none()
  | st.booleans()
  | st.integers(-(2**70), 2**70)
  | st.sampled_from(['F32', 'BF16', 'F4', 'OBJECT', '', '../x']),
  lambda inner: (
    st.lists(inner, max_size=3)
    | st.dictionaries(
      st.sampled_from(['dtype', 'shape', 'data_offsets', 'x']), inner
    )
  ),
  max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
  {
    'dtype': st.sampled_from(['F32', 'I8', 'BOOL', 'F8_E4M3', 'U64', 'C64']),
    'shape': st.lists(st.integers(0, 2**62), max_size=3),
    'data_offsets': st.lists(st.integers(0, 2**62), min_size=2, max_size=2),
  }
)
NAMES = st.sampled_from(
  ['a', 'a.b', 'a/b', '..', '../../x', '', '__metadata__', '/etc/passwd']
)


def with_header(header: object, rest: bytes = SOUND[HEADER_BYTES:]) -> bytes:
  text = json.dumps(header).encode()
  return len(text).to_bytes(_LENGTH_BYTES, 'little') + text + rest


def read(data: bytes, name: str = 'model.safetensors') -> str | None:
  """Loads a file with little memory; why not, in a line, if it is refused."""
  refused = None
  with tempfile.TemporaryDirectory() as directory:
    path = pathlib.Path(directory, name)
    path.write_bytes(data)
    tracemalloc.start()
    try:
      leaves = jax.tree.leaves(load_arrays(str(path)))
      assert sum(leaf.nbytes for leaf in leaves) <= len(data)
    except errors.InputError as error:
      refused = str(error)
    finally:
      most = tracemalloc.get_traced_memory()[1]
      tracemalloc.stop()
  assert most < FEW_BYTES
  assert '\n' not in (refused or '')
  return refused


@hypothesis.given(
  st.integers(0, len(SOUND) - 1), st.binary(min_size=1, max_size=8)
)
def test_any_damage_is_read_or_refused(place, patch):
  read(SOUND[:place] + patch + SOUND[place + len(patch) :])


@hypothesis.given(st.integers(0, len(SOUND) - 1))
def test_cut_files_are_refused(length):
  assert read(SOUND) is None
  assert 'model.safetensors is no file of weights' in str(read(SOUND[:length]))


@hypothesis.given(st.dictionaries(NAMES, ENTRIES | VALUES, max_size=3))
def test_any_header_is_read_or_refused(header):
  read(with_header(header))


@hypothesis.given(
  st.dictionaries(
    st.sampled_from(['weight_map', 'metadata']),
    st.dictionaries(NAMES, VALUES | NAMES) | VALUES,
  )
)
def test_any_index_of_files_is_refused(content):
  """None of the files that it could name is there."""
  name = 'model.safetensors.index.json'
  assert read(json.dumps(content).encode(), name)


@pytest.mark.parametrize(
  'data',
  [
    (2**63).to_bytes(_LENGTH_BYTES, 'little'),
    (2**40).to_bytes(_LENGTH_BYTES, 'little') + b'{}',
    with_header({'x': {}}),
    b'[' * 100_000,
  ],
)
def test_lengths_that_are_not_there_are_refused(data):
  assert read(data)
