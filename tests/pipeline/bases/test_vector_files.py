import os
import resource

import numpy as np
import pytest

from influence_core.eigenpairs import host_vectors, krylov_vectors
from pipeline.bases import vector_files
from pipeline.storage import files as storage

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
