"""Rows files from elsewhere: read, or refused in one line."""

import contextlib
import io
import json

import hypothesis
from hypothesis import strategies
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from influence_core.devices import memory as device_memory
from pipeline.index import shard_files
from pipeline.storage import checked_files

VECTORS = checked_files.StoredFile('vectors-x.npy', 144, '00000000')
ROWS = pa.table(
  {
    'id': ['f__0', 'f__1'],
    'loss': pa.array([0.5, 1.5], pa.float32()),
    'squared_gradient_norm': pa.array([1.0, 2.0], pa.float32()),
    'label': [3, 4],
  }
)
SOUND = shard_files.encode_rows(ROWS, VECTORS, {'f__2': 'why'})


def with_metadata(text, rows=ROWS):
  stream = io.BytesIO()
  key = shard_files._METADATA_KEY
  pq.write_table(rows.replace_schema_metadata({key: text}), stream)
  return stream.getvalue()


def says(vectors=None, rejected=None):
  content = {
    'vectors': vectors or {'name': 'v.npy', 'num_bytes': 1, 'crc32c': ''},
    'rejected': {} if rejected is None else rejected,
  }
  return with_metadata(json.dumps(content))


def test_sound_ones_are_read():
  found = shard_files.parse_rows('p', SOUND)
  assert found.vectors == VECTORS
  assert found.rejected == {'f__2': 'why'}
  assert found.table.num_rows == 2


@pytest.mark.parametrize(
  ('data', 'message'),
  [
    (b'', 'no rows file'),
    (b'PAR1' * 10, 'no rows file'),
    (with_metadata('{'), 'no rows file'),
    (with_metadata('[' * 100_000), 'no rows file'),
    (with_metadata('{"vectors": {}}'), 'name'),
    (says({'name': '../v', 'num_bytes': 1, 'crc32c': ''}), 'no name of a file'),
    (says({'name': 'v', 'num_bytes': -1, 'crc32c': ''}), 'num_bytes is -1'),
    (says(rejected={'f__2': 3}), 'f__2 is 3'),
    (says(rejected=[1]), 'which is refused'),
    (
      with_metadata(
        json.dumps({'vectors': VECTORS.__dict__, 'rejected': {}}),
        ROWS.drop_columns(['id']),
      ),
      'id',
    ),
  ],
)
def test_lies_are_refused(data, message):
  with pytest.raises(errors.InputError, match=message) as error:
    shard_files.parse_rows('shards/rows-x.parquet', data)
  assert 'rows-x.parquet' in str(error.value)


def test_bomb_is_refused_before_it_is_unpacked(monkeypatch):
  stream = io.BytesIO()
  zeros = pa.array([0] * (1 << 21), pa.int64())
  pq.write_table(pa.table({'id': zeros}), stream, use_dictionary=False)
  data = stream.getvalue()
  assert len(data) < 1 << 21
  monkeypatch.setattr(device_memory, 'host_bytes', lambda: 1 << 20)
  with pytest.raises(errors.InputError, match=r'would take .* of memory'):
    shard_files.parse_rows('p', data)


@hypothesis.given(
  place=strategies.integers(0, len(SOUND) - 1),
  content=strategies.binary(max_size=8),
  cut=strategies.integers(0, 8),
)
@hypothesis.settings(deadline=None)
def test_any_damage_is_read_or_one_error(place, content, cut):
  data = SOUND[:place] + content + SOUND[place + cut :]
  with contextlib.suppress(errors.InputError):
    found = shard_files.parse_rows('p', data)
    assert {'id', 'loss'} <= {*found.table.column_names}
