"""Columns that are read without rows are what the rows give, stacked."""

import datetime
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.corpora import raw_batch
from pipeline.corpora.corpus import SourceShard
from pipeline.storage import machine_cache

NUM_ROWS = 10
START, STOP = 3, 8
ARRAYS = {
  'float': np.linspace(0, 1, NUM_ROWS, dtype=np.float32),
  'half': np.linspace(0, 1, NUM_ROWS, dtype=np.float16),
  'int': np.arange(NUM_ROWS, dtype=np.uint8),
  'large': np.full(NUM_ROWS, 2**63 + 1, np.uint64),
  'flag': np.arange(NUM_ROWS) % 2 == 0,
  'image': np.arange(NUM_ROWS * 6.0).reshape(NUM_ROWS, 2, 3),
  'transposed': np.asfortranarray(np.arange(NUM_ROWS * 2).reshape(-1, 2)),
  'complex': np.full(NUM_ROWS, 1j, np.complex64),
}
NO_NUMBERS = {
  'text': np.array([f'{x}' * x for x in range(NUM_ROWS)]),
  'swapped': np.arange(NUM_ROWS, dtype='>f4'),
}
VECTORS = np.arange(NUM_ROWS * 3, dtype=np.float32).reshape(NUM_ROWS, 3)
TENSOR = pa.fixed_shape_tensor(pa.float32(), (3,))
TABLE = pa.table(
  {
    'float32': pa.array(ARRAYS['float']),
    'float64': pa.array(np.linspace(0, 1, NUM_ROWS)),
    'int8': pa.array(np.arange(NUM_ROWS, dtype=np.int8)),
    'uint32': pa.array(np.full(NUM_ROWS, 2**32 - 1, np.uint32)),
    'list': pa.array(VECTORS.tolist(), pa.list_(pa.float32())),
    'large_list': pa.array(VECTORS.tolist(), pa.large_list(pa.int16())),
    'fixed_list': pa.array(VECTORS.tolist(), pa.list_(pa.float64(), 3)),
    'empty_lists': pa.array([[]] * NUM_ROWS, pa.list_(pa.int64())),
  }
)
NO_ARRAYS = pa.table(
  {
    'text': pa.array(list('abcdefghij')),
    'null': pa.array([x if x != 5 else None for x in range(NUM_ROWS)]),
    'date': pa.array([datetime.date(2020, 1, 1)] * NUM_ROWS),
    'uint64': pa.array(ARRAYS['large']),
    'ragged': pa.array([[1.0] * x for x in range(NUM_ROWS)]),
    'nulls': pa.array([[1.0, None]] * NUM_ROWS),
    'null_list': pa.array([[x] if x != 5 else None for x in range(NUM_ROWS)]),
    'times': pa.array([[datetime.date(2020, 1, 1)]] * NUM_ROWS),
    'tensor': pa.ExtensionArray.from_storage(
      TENSOR, pa.array(VECTORS.tolist(), pa.list_(pa.float32(), 3))
    ),
  }
)


@pytest.fixture(autouse=True, name='cache')
def fixture_cache(monkeypatch, tmp_path):
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(tmp_path / 'cache'))


def write_npz(path: pathlib.Path) -> str:
  np.savez(path / 'a.npz', **ARRAYS, **NO_NUMBERS)
  return str(path / 'a.npz')


def write_compressed_npz(path: pathlib.Path) -> str:
  np.savez_compressed(path / 'a.npz', **ARRAYS, **NO_NUMBERS)
  return str(path / 'a.npz')


def write_npy(path: pathlib.Path) -> str:
  for name, array in (ARRAYS | NO_NUMBERS).items():
    np.save(path / f'{name}_train.npy', array)
  return str(path)


def whole_table() -> pa.Table:
  table = TABLE
  for name in NO_ARRAYS.column_names:
    table = table.append_column(name, NO_ARRAYS.column(name))
  return table


def write_parquet(path: pathlib.Path) -> str:
  pq.write_table(whole_table(), path / 'a.parquet', row_group_size=4)
  return str(path / 'a.parquet')


def write_arrow(path: pathlib.Path) -> str:
  table = whole_table()
  with pa.ipc.new_file(str(path / 'a.arrow'), table.schema) as writer:
    writer.write_table(table, max_chunksize=4)
  return str(path / 'a.arrow')


def part_of(corpus: FileCorpus) -> SourceShard:
  [shard] = corpus.source_shards()
  return SourceShard(shard.name, START, STOP)


@pytest.mark.parametrize(
  ('write', 'expected'),
  [
    (write_npz, {*ARRAYS}),
    (write_compressed_npz, {*ARRAYS}),
    (write_npy, {*ARRAYS}),
    (write_parquet, {*TABLE.column_names}),
    (write_arrow, {*TABLE.column_names}),
  ],
)
def test_columns_are_rows_stacked(tmp_path, write, expected):
  corpus = FileCorpus(write(tmp_path))
  part = part_of(corpus)
  found = corpus.read_columns(part)
  assert {*found} == expected
  rows = [raw for _, raw in corpus.read_range(part.name, START, STOP)]
  for name, column in found.items():
    stacked = np.stack([row[name] for row in rows])
    assert column.dtype == stacked.dtype, name
    np.testing.assert_array_equal(column, stacked, err_msg=name)


def test_columns_of_lists_are_arrays_where_they_have_one_length(tmp_path):
  """In one part of a file, not in another."""
  lists = pa.array([[1.0, 2.0]] * 4 + [[1.0]] * 2)
  pq.write_table(pa.table({'x': lists}), tmp_path / 'a.parquet')
  corpus = FileCorpus(str(tmp_path / 'a.parquet'))
  [shard] = corpus.source_shards()
  sizes = [
    sum(len(x) for x in corpus.read_columns(part).values())
    for part in (
      SourceShard(shard.name, 0, 4),
      SourceShard(shard.name, 3, 5),
      SourceShard(shard.name, 4, 6),
    )
  ]
  assert sizes == [4, 0, 2]


def test_texts_have_no_columns(tmp_path):
  (tmp_path / 'a.jsonl').write_text('{"x": 1}\n' * NUM_ROWS)
  corpus = FileCorpus(str(tmp_path / 'a.jsonl'))
  assert not corpus.read_columns(part_of(corpus))


def test_rows_past_the_end_are_no_columns(tmp_path):
  corpus = FileCorpus(write_parquet(tmp_path))
  [shard] = corpus.source_shards()
  assert not corpus.read_columns(SourceShard(shard.name, 8, 12))


def test_missing_file_is_told(tmp_path):
  path = write_npz(tmp_path)
  corpus = FileCorpus(path)
  part = part_of(corpus)
  pathlib.Path(path).unlink()
  with pytest.raises(errors.InputError, match=r'a\.npz is missing'):
    corpus.read_columns(part)


def test_rows_of_a_batch_are_read_when_asked_for():
  calls = []

  def read_rows():
    calls.append(1)
    return ({'x': x, 'y': np.array([x, x])} for x in range(3))

  batch = raw_batch.RawBatch(3, read_rows, lambda: {'x': np.arange(3)})
  assert len(batch) == 3
  column = batch.column('x')
  assert not calls
  column += 1  # It is the caller's own.
  assert batch.column('x').tolist() == [0, 1, 2]
  assert batch.column('y').tolist() == [[0, 0], [1, 1], [2, 2]]
  assert [row['x'] for row in batch] == [0, 1, 2]
  assert batch[-1]['x'] == 2
  assert len(calls) == 1
  with pytest.raises(KeyError):
    batch.column('z')
