"""Commands on an index whose columns belong to layers."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline import open_index
from tests.kit import synthetic_index
from tests.kit.synthetic_index import LAYERS

NAMES = [layer.name for layer in LAYERS]


@pytest.fixture(name='layered', scope='module')
def fixture_layered(tmp_path_factory):
  path = tmp_path_factory.mktemp('layered')
  synthetic_index.make_index(path, 'float32', LAYERS)
  return path


def test_self_influence_by_layer(influence, layered, tmp_path):
  command = ['self-influence', '--index', layered, '--k', 4, '--by_layer']
  found = influence(*command, '--json').json['results']
  for row in found:
    assert list(row['by_layer']) == NAMES
    # Scores are sums in float32.
    assert sum(row['by_layer'].values()) == pytest.approx(row['score'], 1e-5)
  shown = influence(*command, '--layers', 'Conv_0|Dense_1').stdout
  assert 'Dense_0' not in shown
  [line] = [x for x in shown.splitlines() if x.startswith('1 ')]
  assert 'Conv_0' in line
  assert 'Dense_1' in line
  for name in ('o.csv', 'o.parquet'):
    assert influence(*command, '--out', tmp_path / name).status == 0
  with open(tmp_path / 'o.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  table = pq.read_table(tmp_path / 'o.parquet')
  for row, other, expected in zip(
    rows, table['by_layer'].to_pylist(), found, strict=True
  ):
    assert other == expected['by_layer']
    for layer in NAMES:
      share = expected['by_layer'][layer]
      assert float(row[f'by_layer.{layer}']) == pytest.approx(share)


def test_some_layers(influence, layered):
  command = ['self-influence', '--index', layered, '--k', 1, '--json']
  parts = [
    influence(*command, '--where', "id = 'f__5'", '--layers', name).json
    for name in NAMES
  ]
  whole = influence(*command, '--where', "id = 'f__5'").json
  total = sum(part['results'][0]['score'] for part in parts)
  assert total == pytest.approx(whole['results'][0]['score'], 1e-5)
  wrong = influence(*command, '--layers', 'Norm')
  assert 'Conv_0, Dense_0, Dense_1' in wrong.error_line


def test_index_without_layers(influence, index):
  for flags in (['--layers', 'Dense'], ['--by_layer']):
    wrong = influence('self-influence', '--index', index, *flags)
    assert 'knows no layers' in wrong.error_line


def test_describe_lists_them(influence, layered, index):
  done = influence('describe', '--index', layered)
  assert done.status == 0, done.stderr
  for name in NAMES:
    assert f'\n{name} ' in done.stdout
  found = influence('describe', '--index', layered, '--json').json['layers']
  assert [(x['name'], x['start']) for x in found] == [
    ('Conv_0', 0),
    ('Dense_0', 5),
    ('Dense_1', 9),
  ]
  plain = influence('describe', '--index', index, '--json').json
  assert plain['layers'] == []


def test_exports_say_which_columns_are_whose(
  influence, layered, index, tmp_path
):
  def export(of, path, file_format):
    flags = ['--out', path, '--format', file_format]
    done = influence('export', '--index', of, *flags)
    assert done.status == 0, done.stderr

  expected = open_index(str(layered)).rows([0]).schema.metadata[b'layers']
  export(layered, tmp_path / 'o.parquet', 'parquet')
  schema = pq.read_schema(tmp_path / 'o.parquet')
  assert schema.metadata[b'layers'] == expected
  export(layered, tmp_path / 'o.npy', 'npy')
  beside = tmp_path / 'o.npy.layers.json'
  layers = json.loads(beside.read_text())
  assert layers == json.loads(expected)
  last = layers[-1]
  columns = np.load(tmp_path / 'o.npy')[:, last['start'] :]
  np.testing.assert_array_equal(columns, synthetic_index.VECTORS[:, 9:])
  export(index, tmp_path / 'o.npy', 'npy')
  assert not beside.exists()
