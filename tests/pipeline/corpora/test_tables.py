"""Parquet and Arrow: large row groups, pieces, and rows that Python lacks."""

import os
import subprocess
import sys

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from pipeline import FileCorpus
from pipeline.corpora import parquet_files, pieces
from pipeline.corpora.corpus import UndecodableExample
from pipeline.storage import files as storage, machine_cache
from tests.kit import devices
from tests.pipeline.storage.test_object_store import url

TABLE = pa.table(
  {
    'number': pa.array(range(100)),
    'text': pa.array([None, *(f'{x}' * x for x in range(1, 100))]),
    'kind': pa.array([f'{x % 3}' for x in range(100)]).dictionary_encode(),
    'list': pa.array([[1.5] * (x % 4) for x in range(100)]),
  }
)
POSITIONS = [99, 0, 40, 41, 39, 40, 7]


@pytest.fixture(autouse=True, name='cache')
def fixture_cache(monkeypatch, tmp_path):
  path = tmp_path / 'cache'
  monkeypatch.setenv(machine_cache.DIRECTORY_VARIABLE, str(path))
  return path


def plain(raw):
  row = {key: value for key, value in raw.items() if key != 'tfds_id'}
  return {
    key: value.tolist() if isinstance(value, np.ndarray) else value
    for key, value in row.items()
  }


def rows_of(corpus, positions):
  return [plain(raw) for _, raw in corpus.read_positions(positions)]


@hypothesis.given(
  st.lists(st.integers(0, 5), min_size=1, max_size=8), st.data()
)
def test_rows_of_pieces_are_those_of_the_whole(sizes, data):
  table = pa.table({'x': range(sum(sizes))})
  edges = np.cumsum([0, *sizes])
  batches = [
    table.slice(start, size).combine_chunks().to_batches()
    for start, size in zip(edges, sizes, strict=False)
  ]
  parts = pieces.Pieces.of(x for some in batches for x in some)
  if not sum(sizes):
    return
  rows = data.draw(
    st.lists(st.integers(0, sum(sizes) - 1), min_size=1, max_size=20)
  )
  found = pa.Table.from_batches(list(parts.slices(rows)))
  assert found.column('x').to_pylist() == rows
  with pytest.raises(RuntimeError, match='there is no row'):
    list(parts.slices([0, sum(sizes)]))


@pytest.mark.parametrize('limit', ['BYTES', 'ROWS'])
@pytest.mark.parametrize('columns', [(), ('text', 'list')])
def test_large_row_groups_are_read_from_disk(
  monkeypatch, tmp_path, cache, columns, limit
):
  path = tmp_path / 'a.parquet'
  pq.write_table(TABLE, path, row_group_size=40)
  expected = TABLE.select(columns or TABLE.column_names)
  expected = expected.take(POSITIONS).to_pylist()
  assert rows_of(FileCorpus(str(path), columns=columns), POSITIONS) == expected
  assert not cache.exists()
  monkeypatch.setattr(parquet_files, f'_MAX_GROUP_{limit}', 10)
  monkeypatch.setattr(parquet_files, f'_PIECE_{limit}', 30)
  corpus = FileCorpus(str(path), columns=columns)
  assert rows_of(corpus, POSITIONS) == expected
  assert len([*cache.glob('*/group-*')]) == 3
  monkeypatch.setattr('influence_core.devices.memory.host_bytes', lambda: 1000)
  with pytest.raises(errors.InputError, match='read fewer columns'):
    rows_of(FileCorpus(str(path)), POSITIONS)


@pytest.mark.parametrize('kind', ['file', 'stream'])
def test_compressed_arrow_files_are_unpacked_once(tmp_path, cache, kind):
  create = pa.ipc.new_file if kind == 'file' else pa.ipc.new_stream
  for compression in (None, 'zstd'):
    path = tmp_path / f'{compression}.arrow'
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with create(str(path), TABLE.schema, options=options) as writer:
      writer.write_table(TABLE, max_chunksize=7)
    found = rows_of(FileCorpus(str(path)), POSITIONS)
    assert found == TABLE.take(POSITIONS).to_pylist()
    assert cache.exists() == (compression is not None)


_READ = """
import pyarrow as pa
from pipeline import FileCorpus
from pipeline.corpora import parquet_files
parquet_files._MAX_GROUP_BYTES = parquet_files._PIECE_BYTES = 1 << 20
for path in {paths}:
  corpus = FileCorpus(path)
  for position in (3000, 5, 3999):
    [(_, raw)] = corpus.read_positions([position])
    assert raw['text'].startswith(f'{{position}} ')
print(pa.default_memory_pool().max_memory())
"""


def test_few_rows_of_large_files_take_little_memory(tmp_path):
  """40 MB in one row group, and as a mapped file of 40 pieces."""
  texts = [f'{x} '.ljust(10_000, 'x') for x in range(4000)]
  table = pa.table({'text': texts})
  paths = [str(tmp_path / 'a.parquet'), str(tmp_path / 'a.arrow')]
  pq.write_table(table, paths[0], use_dictionary=False)
  with pa.ipc.new_stream(paths[1], table.schema) as writer:
    writer.write_table(table, max_chunksize=100)
  done = subprocess.run(
    [sys.executable, '-c', _READ.format(paths=paths)],
    cwd=devices.ROOT,
    check=True,
    capture_output=True,
    text=True,
  )
  assert int(done.stdout) < 0.75 * table.nbytes


@pytest.mark.parametrize('is_large', [False, True])
def test_damaged_row_groups_are_tried_once(monkeypatch, tmp_path, is_large):
  path = tmp_path / 'a.parquet'
  pq.write_table(TABLE, path, row_group_size=40, compression='zstd')
  place = pq.ParquetFile(path).metadata.row_group(1).column(1).data_page_offset
  data = bytearray(path.read_bytes())
  data[place : place + 60] = bytes(60)
  path.write_bytes(data)
  if is_large:
    monkeypatch.setattr(parquet_files, '_MAX_GROUP_BYTES', 10)
  tried = []
  size = parquet_files.ParquetFiles._size
  monkeypatch.setattr(
    parquet_files.ParquetFiles,
    '_size',
    lambda self, path, number: tried.append(number) or size(self, path, number),
  )
  found = [raw for _, raw in FileCorpus(str(path)).read_positions(range(100))]
  bad = [isinstance(raw, UndecodableExample) for raw in found]
  assert bad == [False] * 40 + [True] * 40 + [False] * 20
  assert 'row group 1 of ' in found[40].reason
  assert tried == [0, 1, 2]


def test_values_that_python_lacks_are_named(tmp_path):
  path = tmp_path / 'a.parquet'
  bad_text = pa.array([b'a', b'\xff', b'c']).view(pa.string())
  far_date = pa.array([0, 1, 1 << 60]).cast(pa.timestamp('us'))
  pq.write_table(pa.table({'text': bad_text, 'date': far_date}), path)
  found = [raw for _, raw in FileCorpus(str(path)).read_positions(range(3))]
  assert found[0]['text'] == 'a'
  for raw in found[1:]:
    assert f'rows of {path} cannot be read' in raw.reason


def test_mapped_files_that_were_cut_off_are_noticed(tmp_path):
  path = tmp_path / 'a.arrow'
  with pa.ipc.new_file(str(path), TABLE.schema) as writer:
    writer.write_table(TABLE)
  corpus = FileCorpus(str(path))
  assert len(rows_of(corpus, [0])) == 1
  os.truncate(path, 100)
  with pytest.raises(errors.InputError, match='leave it as it is'):
    rows_of(corpus, [1])


@pytest.mark.slow
def test_a_store_that_fails_while_it_is_read_is_no_damage(store, tmp_path):
  """Rows would be rejected; libraries pass on what our files raise."""
  texts = [np.random.default_rng(x).bytes(9000) for x in range(1500)]
  table = pa.table({'text': texts})
  pq.write_table(table, tmp_path / 'a.parquet', row_group_size=300)
  data = (tmp_path / 'a.parquet').read_bytes()
  storage.create_exclusive(url('a.parquet'), data)
  corpus = FileCorpus(url('a.parquet'))
  [(_, raw)] = corpus.read_positions([0])
  assert raw['text'] == texts[0]
  for _ in range(6):
    store.disturb_next('503', 'GET')
  with pytest.raises(errors.InputError, match='the object store cannot be'):
    list(corpus.read_positions([900]))
