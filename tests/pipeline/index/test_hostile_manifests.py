"""Manifests from elsewhere, whose checksums fit: refused by name, or read.

A checksum tells that a file arrived whole, not that it means well.
"""

import contextlib
import json

import hypothesis
from hypothesis import strategies
import pytest

from influence_core import errors
from pipeline.index import manifest as manifest_lib
from pipeline.storage import checked_files, files as storage


@pytest.fixture(name='content', scope='module')
def fixture_content(index):
  return checked_files.read_json(f'{index}/manifest-000001.json')


def load(directory, content):
  data = checked_files.encode_json(content)
  (directory / 'manifest-000001.json').write_bytes(data)
  return manifest_lib.load(str(directory))


def changed(content, place, value):
  """A copy with another value at a place such as ('shards', 0, 'rows')."""
  copy = json.loads(json.dumps(content))
  part = copy
  for name in place[:-1]:
    part = part[name]
  part[place[-1]] = value
  return copy


def parsed(place):
  """Of a text such as 'shards.0.rows'."""
  return [int(x) if x.isdigit() else x for x in place.split('.')]


@pytest.mark.parametrize(
  ('place', 'value', 'message'),
  [
    ('shards.0.rows.name', '../../secret', 'no name of a file below'),
    ('shards.0.rows.name', '/etc/passwd', 'no name of a file below'),
    ('shards.0.rows.name', 'gs://other/rows', 'no name of a file below'),
    ('shards.0.vectors.name', 'a\\..\\b', 'no name of a file below'),
    ('shards.0.range.source_shard', '../data', 'no name of a file below'),
    ('shards.0.range.source_shard', 'a/b', 'is no range'),
    ('shards.0.range.stop', -1, 'is no range'),
    ('shards.0.num_written', 10**15, 'which so many do not take'),
    ('shards.0.num_written', -1, 'cannot be'),
    ('shards.0.num_written', 1.5, 'shards.0.num_written is 1.5'),
    ('shards.0.num_written', '3 rows', "shards.0.num_written is '3 rows'"),
    ('shards.0.vectors.num_bytes', 10**18, 'which so many do not take'),
    ('shards.0.vectors.num_bytes', -1, 'num_bytes is -1'),
    ('shards.0.vectors', None, 'shards.0.vectors is None'),
    ('shards', {}, 'shards is {}'),
    ('shards', 'many', "shards is 'many'"),
    ('rejected', {'name': '../x', 'num_bytes': 1, 'crc32c': ''}, 'rejected'),
    ('provenance.eigenvalues', ['large'], r"eigenvalues\.0 is 'large'"),
    ('provenance.eigenvalues', [1e300], r'1e\+300 is no curvature'),
    ('provenance.eigenvalues', [float('nan')], 'nan is no curvature'),
    ('provenance.mean_curvature', float('inf'), 'inf is no curvature'),
    ('provenance.fingerprints', [], r'fingerprints is \[\]'),
    ('provenance.fingerprints.dtype', 'object', "stored as 'object'"),
    ('provenance.layers', [{'name': 3}], r'layers\.0'),
    ('generation', [1], r'generation is \[1\]'),
    ('schema_version', 99, 'schema version 99'),
  ],
)
def test_each_lie_is_named(content, tmp_path, place, value, message):
  with pytest.raises(errors.InputError, match=message) as error:
    load(tmp_path, changed(content, parsed(place), value))
  assert '\n' not in str(error.value)
  assert len(str(error.value)) < 600


def test_deep_nesting_is_refused(tmp_path):
  deep = b'[' * 100_000 + b']' * 100_000
  plain = checked_files.encode_json({'x': 0}).replace(
    b'"x": 0', b'"x": ' + deep
  )
  start, stop = 12, 20
  fitting = checked_files.checksum(plain[:start] + plain[stop:]).encode()
  file = tmp_path / 'manifest-000001.json'
  file.write_bytes(plain[:start] + fitting + plain[stop:])
  with pytest.raises(storage.DamagedFileError, match='manifest-000001'):
    manifest_lib.load(str(tmp_path))


VALUES = strategies.recursive(
  strategies.none()
  | strategies.booleans()
  | strategies.integers()
  | strategies.floats()
  | strategies.text(max_size=20)
  | strategies.sampled_from(['..', '/x', 'file:', '\0', 'f', 'a/../b']),
  lambda inner: (
    strategies.lists(inner, max_size=3)
    | strategies.dictionaries(strategies.text(max_size=8), inner, max_size=3)
  ),
  max_leaves=6,
)


def places(content, above=()):
  """Of every value in JSON."""
  pairs = []
  if isinstance(content, dict):
    pairs = content.items()
  elif isinstance(content, list):
    pairs = enumerate(content)
  for name, value in pairs:
    yield (*above, name)
    yield from places(value, (*above, name))


@hypothesis.given(strategies.data())
@hypothesis.settings(
  deadline=None,
  suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
def test_anything_anywhere_is_read_or_refused(content, tmp_path, data):
  place = data.draw(strategies.sampled_from(list(places(content))))
  value = data.draw(VALUES)
  loaded = None
  with contextlib.suppress(errors.InputError):
    loaded = load(tmp_path, changed(content, place, value))
  for shard in loaded.shards if loaded else ():
    assert shard.num_written >= 0
    for file in (shard.rows, shard.vectors):
      assert '..' not in file.name.split('/')
      assert not file.name.startswith('/')
