"""Every truncation and every flipped bit of an index is found and named."""

import itertools
import os

import numpy as np
import pyarrow as pa
import pytest

from influence_core.scores.options import ScoreOptions
from pipeline.index import (
  format as index_format,
  manifest as manifest_lib,
  reader as index_reader,
)
from pipeline.projection import plan as plan_lib, publishing
from pipeline.search import retrieve, self_influence
from pipeline.storage import files as storage
from pipeline.upkeep import verify

RANGE = index_format.ExampleRange('f', 0, 3, 'x')


@pytest.fixture(name='path', params=['float32', 'int8'])
def fixture_path(request, tmp_path):
  """An index of two examples and one that was rejected."""
  provenance = manifest_lib.Provenance(
    {}, '', (2.0, 1.0), {'dtype': request.param}
  )
  rows = pa.table(
    {
      'id': ['f__0', 'f__1'],
      'loss': pa.array([1, 2], pa.float32()),
      'squared_gradient_norm': pa.array([1, 2], pa.float32()),
    }
  )
  content = index_format.ShardContent(
    np.ones((2, 2), np.float32), rows, {'f__2': 'bad'}
  )
  path = str(tmp_path)
  shard = index_format.write_shard(path, RANGE, content, provenance.codec)
  plan = plan_lib.Plan(provenance, (RANGE,))
  publishing.publish_plan(path, plan, [shard], 0.5)
  return path


def damaged_versions(data):
  """Every prefix, one byte more, and every single flipped bit."""
  yield data + b'\0'
  for cut in range(len(data)):
    yield data[:cut]
  for bit in range(8 * len(data)):
    flipped = bytearray(data)
    flipped[bit // 8] ^= 1 << bit % 8
    yield bytes(flipped)


def replace(path, data):
  with open(path, 'wb') as file:
    file.write(data)


def find_damage(path):
  return list(verify.find_damage(index_reader.Index(path)))


@pytest.mark.slow
@pytest.mark.parametrize(
  ('path', 'kind'),
  [
    *itertools.product(['float32', 'int8'], ['manifest', 'vectors']),
    # The same whatever vectors are stored as.
    *itertools.product(['float32'], ['rows', 'rejected']),
  ],
  indirect=['path'],
)
def test_all_damage_is_found_and_named(path, kind):
  assert find_damage(path) == []
  manifest = manifest_lib.load(path)
  shard = manifest.shards[0]
  name = {
    'manifest': manifest_lib.file_name(1),
    'rows': f'shards/{shard.rows.name}',
    'vectors': f'shards/{shard.vectors.name}',
    'rejected': manifest.rejected.name,
  }[kind]
  place = os.path.join(path, name)
  with open(place, 'rb') as file:
    good = file.read()
  for data in damaged_versions(good):
    replace(place, data)
    if kind == 'manifest':
      with pytest.raises(storage.DamagedFileError, match=name):
        index_reader.Index(path)
    else:
      (line,) = find_damage(path)
      assert os.path.basename(name) in line
  os.unlink(place)
  if kind != 'manifest':
    (line,) = find_damage(path)
    assert line.endswith(f'{os.path.basename(name)} is missing')
  replace(place, good)
  assert find_damage(path) == []


READS = {
  'search': lambda index: retrieve.search(
    index,
    np.ones((1, 2), np.float32),
    k=1,
    # Needs rows, too.
    options=ScoreOptions(normalization='gradient_norm'),
  ),
  'self_influence': lambda index: self_influence.top(
    index,
    k=1,
    options=ScoreOptions(normalization='gradient_norm'),
  ),
  'rows': lambda index: index.rows(),
  'vectors': lambda index: index.vectors([1]),
}


@pytest.mark.slow
@pytest.mark.parametrize(
  ('read', 'kind'),
  [
    ('search', 'rows'),
    ('search', 'vectors'),
    ('self_influence', 'rows'),
    ('self_influence', 'vectors'),
    ('rows', 'rows'),
    ('vectors', 'vectors'),
  ],
)
def test_no_read_gives_what_is_damaged(path, kind, read):
  """Whatever uses a file refuses it; a sample of all places in it."""
  index = index_reader.Index(path)
  name = getattr(index.manifest.shards[0], kind).name
  place = os.path.join(path, 'shards', name)
  with open(place, 'rb') as file:
    good = file.read()
  for data in list(damaged_versions(good))[::37]:
    replace(place, data)
    with pytest.raises(storage.DamagedFileError, match=name):
      READS[read](index)
  os.unlink(place)
  with pytest.raises(storage.DamagedFileError, match='is missing'):
    READS[read](index)
