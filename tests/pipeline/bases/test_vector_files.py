import os
import resource

import numpy as np
import pytest

from influence_core import errors
from influence_core.eigenpairs import arnoldi, host_vectors, krylov_vectors
from pipeline.bases import krylov_files, vector_files
from pipeline.storage import checked_files, files as storage

NUM_COLUMNS = 1000


@pytest.fixture(name='small_chunks', autouse=True)
def fixture_small_chunks(monkeypatch):
  # Blocks of 16 columns, 4 or 8 of them in a chunk, the last ones shorter.
  monkeypatch.setattr(vector_files, '_CHUNK_BYTES', 256)
  monkeypatch.setattr(krylov_vectors, 'BLOCK_COLUMNS', 16)


def make_both(path, dtype_name, num_vectors=5, seed=0):
  """The same vectors in files and in memory."""
  dtype = krylov_vectors.DTYPES[dtype_name]
  rows = (
    vector_files.VectorFiles(str(path), NUM_COLUMNS, dtype),
    host_vectors.MemoryRows(20, NUM_COLUMNS, dtype),
  )
  values = np.random.default_rng(seed).normal(size=(num_vectors, NUM_COLUMNS))
  for store in rows:
    for value in values / np.sqrt(NUM_COLUMNS):
      store.append(value.astype(dtype))
  return tuple(host_vectors.HostVectors(store) for store in rows)


def slices(seed):
  vector = np.random.default_rng(seed).normal(size=(1, NUM_COLUMNS))
  return vector.astype(np.float32)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_files_are_like_memory(tmp_path, dtype):
  files, memory = make_both(tmp_path, dtype)
  np.testing.assert_array_equal(
    files.overlaps(slices(1)), memory.overlaps(slices(1))
  )
  for start, stop in ((0, NUM_COLUMNS), (3, 5), (61, 131), (999, 1000)):
    coefficients = np.random.default_rng(2).normal(size=(3, 5))
    np.testing.assert_array_equal(
      files.combine(coefficients, start, stop),
      memory.combine(coefficients, start, stop),
    )
  for one, other in zip(
    files.orthogonalise(slices(3), np.ones(4)),
    memory.orthogonalise(slices(3), np.ones(4)),
    strict=True,
  ):
    np.testing.assert_array_equal(one, other)


def test_what_was_read_is_not_taken_for_new_rows(tmp_path):
  files, memory = make_both(tmp_path, 'float32')
  coefficients = np.random.default_rng(2).normal(size=(2, 4))
  for vectors in (files, memory):
    vectors.overlaps(slices(1))
    vectors.restart(coefficients)
    for seed in (4, 5):  # As many vectors as before.
      vectors.append(slices(seed), 1.0)
  np.testing.assert_array_equal(
    files.overlaps(slices(1)), memory.overlaps(slices(1))
  )
  np.testing.assert_array_equal(files.gram(files), memory.gram(memory))


def test_truncated_vector_is_an_error(tmp_path):
  files, _ = make_both(tmp_path, 'float32')
  os.truncate(tmp_path / 'vector-00002.bin', 4 * NUM_COLUMNS - 1)
  with pytest.raises(storage.DamagedFileError, match='vector-00002'):
    files.overlaps(slices(1))


def test_more_vectors_than_a_process_may_have_files(tmp_path):
  files, memory = make_both(tmp_path, 'float32', num_vectors=15)
  coefficients = np.random.default_rng(2).normal(size=(12, 14))
  limits = resource.getrlimit(resource.RLIMIT_NOFILE)
  num_open = len(os.listdir('/proc/self/fd'))
  resource.setrlimit(resource.RLIMIT_NOFILE, (num_open + 5, limits[1]))
  try:
    found = files.overlaps(slices(1))
    for vectors in (files, memory):
      vectors.restart(coefficients)
  finally:
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
  assert len(found) == 15
  np.testing.assert_array_equal(files.gram(files), memory.gram(memory))


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'rows': [{'name': '../x', 'num_bytes': 4, 'crc32c': ''}]}, 'is no name'),
    ({'rows': None}, 'rows is None'),
    ({'hessenberg': 'AAAA'}, 'hessenberg is not of 16 bytes'),
    ({'num_products': 'many'}, "num_products is 'many'"),
  ],
)
def test_state_that_was_not_written_here_is_refused(tmp_path, changed, message):
  files = krylov_files.KrylovFiles(str(tmp_path), 4, np.dtype(np.float32))
  for _ in range(2):
    files.vectors.append(np.ones(4, np.float32))
  state = arnoldi.ArnoldiState(np.ones((2, 1)), np.zeros(1), num_products=3)
  files.save_state(state)
  assert krylov_files.num_vectors(str(tmp_path), 3) == 2
  [path] = tmp_path.glob('state-*')
  content = checked_files.read_json(str(path)) | changed
  path.write_bytes(checked_files.encode_json(content))
  with pytest.raises(errors.InputError, match=message):
    files.load_state(3)
