import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq

from launch.output import result_tables


def test_tokens_are_lists_in_parquet_and_json_in_csv(tmp_path):
  tokens = [{'text': 'Ä "b", c', 'score': -0.5}, {'text': ' d', 'score': 2.0}]
  layers = {'one': 1.0, 'two': 0.5}
  table = pa.Table.from_pylist(
    [{'score': 1.5, 'by_layer': layers, 'tokens': tokens}]
  )
  paths = [str(tmp_path / f'found.{kind}') for kind in ('csv', 'parquet')]
  for path in paths:
    result_tables.write_table(path, table)
  with open(paths[0], encoding='utf-8') as file:
    [row] = csv.DictReader(file)
  assert json.loads(row['tokens']) == tokens
  assert [float(row[f'by_layer.{name}']) for name in layers] == [1.0, 0.5]
  assert pq.read_table(paths[1]).to_pylist() == table.to_pylist()
