import io
import os

import numpy as np
import pyarrow as pa
import pytest

from influence_core import errors
from pipeline.index import format as index_format, shard_files, vector_codec
from pipeline.storage import checked_files, files as storage, stored_objects

RANGE = index_format.ExampleRange('train-0', 10, 14, 'abc')
CODEC = vector_codec.VectorCodec('float32', np.ones(2))


def content(offset=0.0):
  return index_format.ShardContent(
    vectors=np.arange(6, dtype=np.float32).reshape(3, 2) + offset,
    rows=pa.table(
      {
        'id': ['train-0__10', 'train-0__11', 'train-0__13'],
        'loss': pa.array([1, 2, 3], pa.float32()),
        'squared_gradient_norm': pa.array([1, 2, 3], pa.float32()),
      }
    ),
    rejected={'train-0__12': 'undecodable'},
  )


@pytest.fixture
def index(tmp_path):
  return str(tmp_path)


def test_reads_back_what_was_written(index):
  shard = index_format.write_shard(index, RANGE, content(), CODEC)
  found = index_format.read_shard(index, shard, CODEC)
  np.testing.assert_array_equal(found.vectors, content().vectors)
  assert found.rows.drop_columns([]).to_pydict() == content().rows.to_pydict()
  assert found.rejected == content().rejected
  assert (shard.num_written, shard.num_rejected) == (3, 1)
  again = stored_objects.parse(index_format.Shard, shard.to_json(), 'p')
  assert again == shard
  assert index_format.find_shard(index, RANGE) == shard


def test_loser_adopts_the_winner(index):
  winner = index_format.write_shard(index, RANGE, content(), CODEC)
  assert index_format.write_shard(index, RANGE, content(1e-7), CODEC) == winner
  np.testing.assert_array_equal(
    index_format.read_vectors(index, winner, CODEC), content().vectors
  )


def test_every_example_must_be_accounted_for(index):
  short = index_format.ShardContent(content().vectors, content().rows, {})
  with pytest.raises(storage.DamagedFileError, match='expected 4 together'):
    index_format.write_shard(index, RANGE, short, CODEC)
  assert storage.list_names(index) == []


@pytest.mark.parametrize('kind', ['rows', 'vectors'])
def test_every_flipped_byte_and_truncation_is_found(index, kind):
  shard = index_format.write_shard(index, RANGE, content(), CODEC)
  path = os.path.join(index, 'shards', getattr(shard, kind).name)
  with open(path, 'rb') as file:
    good = file.read()
  damaged = [good[:cut] for cut in (0, len(good) // 2, len(good) - 1)]
  damaged += [
    good[:i] + bytes([good[i] ^ 1 << (i % 8)]) + good[i + 1 :]
    for i in range(len(good))
  ]
  for data in damaged:
    with open(path, 'wb') as file:
      file.write(data)
    with pytest.raises(storage.DamagedFileError, match=os.path.basename(path)):
      index_format.read_shard(index, shard, CODEC)
  os.unlink(path)
  with pytest.raises(storage.DamagedFileError, match='is missing'):
    index_format.read_shard(index, shard, CODEC)


@pytest.mark.parametrize('kind', ['rows', 'vectors'])
def test_damaged_shard_is_repaired_under_another_name(index, kind):
  shard = index_format.write_shard(index, RANGE, content(), CODEC)
  path = os.path.join(index, 'shards', getattr(shard, kind).name)
  with open(path, 'r+b') as file:
    file.truncate(20)
  assert index_format.find_shard(index, RANGE) is None
  repaired = index_format.write_shard(index, RANGE, content(), CODEC)
  assert repaired.rows.name != shard.rows.name
  assert index_format.find_shard(index, RANGE) == repaired
  np.testing.assert_array_equal(
    index_format.read_vectors(index, repaired, CODEC), content().vectors
  )


def test_pickled_vectors_are_not_executed(index):
  buffer = io.BytesIO()
  np.save(buffer, np.array([{'a': 1}], dtype=object), allow_pickle=True)
  data = buffer.getvalue()
  file = checked_files.StoredFile.of('vectors-x.npy', data)
  storage.create_exclusive(os.path.join(index, 'shards', file.name), data)
  shard = index_format.Shard(RANGE, file, file, 3, 1)
  with pytest.raises(storage.DamagedFileError, match='holds object'):
    index_format.read_vectors(index, shard, CODEC)


def test_columns_of_a_task_hide_none_of_the_index():
  shard_files.check_columns(['label', 'length'])
  with pytest.raises(errors.InputError, match="gives a column 'loss'"):
    shard_files.check_columns(['label', 'loss'])
