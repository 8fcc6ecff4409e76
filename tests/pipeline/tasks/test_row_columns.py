"""What row columns may be, and that all shards of an index have one schema."""

import datetime
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from influence_core import errors
from launch.output import json_text
from pipeline.index import (
  manifest as manifest_lib,
  reader as index_reader,
  shard_files,
)
from pipeline.tasks import row_columns


@pytest.fixture(name='project')
def fixture_project(influence, workdir, basis, tmp_path):
  def run(columns, *arguments):
    return influence(
      *('project', '--task', 'tests.kit.odd_tasks:make_task'),
      *('--task_arg', f'workdir={workdir}', '--task_arg', f'columns={columns}'),
      *('--basis', basis, '--index', tmp_path / 'i', '--range_size', 40),
      *('--json', *arguments),
    )

  return run


def rows_of(tmp_path):
  return index_reader.Index(str(tmp_path / 'i')).rows()


def rejected_of(tmp_path):
  index = tmp_path / 'i'
  file = manifest_lib.load(str(index)).rejected
  return pq.read_table(index / file.name).to_pylist()


def test_every_kind_is_stored_and_printed(
  influence, project, workdir, tmp_path
):
  made = project('all_kinds')
  assert made.status == 0, made.stderr
  rows = rows_of(tmp_path)
  types = {field.name: str(field.type) for field in rows.schema}
  assert types == {
    'id': 'string',
    'loss': 'float',
    'squared_gradient_norm': 'float',
    'bytes': 'string',
    'text': 'string',
    'truth': 'bool',
    'small': 'int8',
    'array': 'int64',
    'day': 'date32[day]',
    'month': 'date32[day]',
    'hour': 'timestamp[us]',
    'nanoseconds': 'timestamp[us]',
    'never': 'string',
    'time': 'timestamp[us]',
    'zone': 'timestamp[us, tz=UTC]',
    'missing': 'double',
    'nan': 'double',
  }
  assert rows['day'][2].as_py() == datetime.date(2026, 1, 3)
  found = influence(
    *('topk', '--task', 'tests.kit.odd_tasks:make_task'),
    *('--task_arg', f'workdir={workdir}', '--task_arg', 'columns=all_kinds'),
    *('--index', tmp_path / 'i', '--query_split', 'test[:1]', '--k', 1),
    '--json',
  )
  assert found.status == 0, found.stderr
  document = json.loads(found.stdout, parse_constant=pytest.fail)
  query = document['queries'][0]
  assert query['bytes'] == 'zwei Hunde'
  assert query['hour'] == '2026-01-01T03:00:00'
  assert query['zone'] == '2026-01-01T02:03:00+00:00'
  assert query['nan'] is None
  done = influence(
    'export', '--index', tmp_path / 'i', '--out', tmp_path / 'o.parquet'
  )
  assert done.status == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
  ('columns', 'expected'),
  [
    ('whole_floats', ('score', 'double', 1.0)),
    ('whole_float_among_integers', ('score', 'int64', 2)),
    ('fewer', ('b', 'int64', None)),
    ('late', ('a', 'string', '7')),
  ],
)
def test_values_are_converted_where_nothing_is_lost(
  influence, project, tmp_path, columns, expected
):
  made = project(columns)
  assert made.status == 0, made.stderr
  rows = rows_of(tmp_path)
  name, arrow_type, value = expected
  assert str(rows.schema.field(name).type) == arrow_type
  places = [x.endswith('__50') for x in rows['id'].to_pylist()]
  assert rows.filter(pa.array(places))[name].to_pylist() == [value] * 3
  for shard in (tmp_path / 'i' / 'shards').glob('*.parquet'):
    assert pq.read_schema(shard).remove_metadata() == rows.schema
  done = influence(
    'export', '--index', tmp_path / 'i', '--out', tmp_path / 'o.parquet'
  )
  assert done.status == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
  ('columns', 'reason'),
  [
    ('float_among_integers', "column 'score' is 2.5, expected int64"),
    ('text_among_integers', "column 'score' is 'x', expected int64"),
    ('more', "there is a column 'b', which the first examples have not"),
    ('one_image', "column 'a' is an array of shape (5,), expected a number"),
  ],
)
def test_example_with_another_value_is_left_out_by_name(
  project, tmp_path, columns, reason
):
  failed = project(columns)
  assert failed.status == 6
  assert reason in failed.error_line
  assert '__50 (row_columns: ' in failed.error_line
  made = project(columns, '--max_rejected_fraction', 0.01)
  assert made.json['num_rejected'] == 3
  for row in rejected_of(tmp_path):
    assert row['id'].endswith('__50')
    assert reason in row['reason']


@pytest.mark.parametrize(
  ('columns', 'message'),
  [
    (
      'image',
      "row_columns: column 'image' is an array of shape (5,), expected",
    ),
    ('nothing', 'row_columns: returned NoneType, expected a dictionary'),
    ('own', "row_columns gives a column 'loss', which every index has"),
  ],
)
def test_impossible_columns_are_named_before_work_starts(
  influence, project, workdir, tmp_path, columns, message
):
  assert message in project(columns).error_line
  assert not (tmp_path / 'i').exists()
  fitted = influence(
    *(
      'fit-basis',
      '--task',
      'tests.kit.odd_tasks:make_task',
      '--out',
      tmp_path,
    ),
    *('--task_arg', f'workdir={workdir}', '--task_arg', f'columns={columns}'),
  )
  assert message in fitted.error_line


@pytest.mark.slow
def test_other_columns_do_not_come_beside_reused_shards(project, tmp_path):
  assert project('plain').status == 0
  changed = project('other_type')
  assert (
    "has the column 'half' as int64, the task now gives double; change the"
    in changed.error_line
  )
  # Nor beside those of a run that was interrupted before it published.
  (tmp_path / 'i' / 'manifest-000001.json').unlink()
  assert "has the column 'half' as int64" in project('other_type').error_line
  assert project('plain').status == 0


@pytest.mark.parametrize(
  ('value', 'message'),
  [
    (b'\xff\x00', "bytes b'\\xff\\x00', which are no UTF-8"),
    ('\ud800', 'is no UTF-8 text'),
    ([1, 2], 'is list, expected a number, text, a date'),
    ({'b': 1}, 'is dict, expected'),
    (1j, 'is complex, expected'),
    (np.timedelta64(1, 's'), 'is timedelta64, expected'),
    (np.datetime64('12026-01-01'), 'in the years 1 to 9999'),
    (2**70, 'is 1180591620717411303424, expected an integer of 64 bits'),
    (-(2**63) - 1, 'expected an integer of 64 bits'),
    (np.datetime64('2026-01-01T00:00:00.000000001'), 'whole microseconds'),
  ],
)
def test_what_no_column_can_hold_is_named(value, message):
  with pytest.raises(row_columns.UnfitColumnError) as error:
    row_columns.plain_row({'a': value})
  assert message in str(error.value)
  assert "'a'" in str(error.value)


@pytest.mark.parametrize(
  ('first', 'later'),
  [
    (np.int8(1), 300),
    (1, float('nan')),
    (1.5, 2**53 + 1),
    (np.float32(1), 0.1),
    (True, 1),
    ('a', 1),
    (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1)),
    (
      datetime.datetime(2026, 1, 1),
      datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC),
    ),
  ],
)
def test_lossy_values_are_refused(first, later):
  schema = row_columns.ColumnSchema.of([{'a': first}])
  with pytest.raises(row_columns.UnfitColumnError, match="column 'a' is"):
    schema.convert({'a': later})


def test_numbers_of_the_first_examples_are_joined():
  schema = row_columns.ColumnSchema.of([{'a': 1}, {'a': 2.5}, {'a': None}])
  assert schema.types == {'a': pa.float64()}
  rows = [schema.convert({'a': value}) for value in (1, np.int8(3), None)]
  assert schema.arrays(rows)['a'].to_pylist() == [1.0, 3.0, None]


def test_integers_of_64_bits_without_a_sign():
  rows = [{'a': 5}, {'a': 2**63 + 1}]
  schema = row_columns.ColumnSchema.of(rows)
  assert schema.types == {'a': pa.uint64()}
  found = schema.arrays([schema.convert(row) for row in rows])['a']
  assert found.to_pylist() == [5, 2**63 + 1]
  with pytest.raises(row_columns.UnfitColumnError, match='is -1, expected'):
    schema.convert({'a': -1})


@pytest.mark.slow
@pytest.mark.parametrize(
  ('columns', 'message'),
  [
    ('other_type', "the column 'half' is double in some shards and int64 in"),
    ('whole_floats', 'have no such column as others have'),
  ],
)
def test_shards_of_older_versions_that_differ_are_told(
  influence, project, tmp_path, monkeypatch, columns, message
):
  monkeypatch.setattr(row_columns.ColumnSchema, 'check_same', lambda *_: None)
  assert project('plain').status == 0
  shard = manifest_lib.load(str(tmp_path / 'i')).shards[3]
  (tmp_path / 'i' / 'shards' / shard.rows.name).unlink()
  assert project(columns).status == 0
  done = influence(
    'export', '--index', tmp_path / 'i', '--out', tmp_path / 'o.parquet'
  )
  assert message in done.error_line


@pytest.mark.parametrize(
  ('row', 'message'),
  [
    ({'id': 1}, "gives a column 'id', which every index has already"),
    ({'Loss': 1}, "gives a column 'Loss', which every index has already"),
    ({'a': 1, 'A': 2}, "'A', which differs from 'a' in capital letters alone"),
  ],
)
def test_columns_that_hide_others_are_refused(row, message):
  with pytest.raises(errors.InputError, match=message):
    row_columns.ColumnSchema.of([row])


def test_names_are_text():
  for name in (3, '\ud800'):
    with pytest.raises(row_columns.UnfitColumnError, match='text'):
      row_columns.plain_row({name: 1})


def test_values_that_files_know_otherwise():
  row = row_columns.plain_row({'half': np.float16(1.5), 'gone': np.ma.masked})
  assert row == {'half': np.float32(1.5), 'gone': None}
  assert row['half'].dtype == np.float32


def test_columns_are_tried_through_to_parquet():
  shard_files.check_storable({'a': pa.array([1, 2]), 'b': pa.array(['x'])})
  column = pa.array([None], pa.month_day_nano_interval())
  with pytest.raises(errors.InputError, match="'b' of month_day_nano_interval"):
    shard_files.check_storable({'a': pa.array([1]), 'b': column})


def test_json_has_no_other_numbers_than_json():
  text = json_text.encode(
    {
      'a': [float('nan'), np.float32('inf'), np.int64(3), (1.5,)],
      'b': datetime.date(2026, 1, 1),
      'c': b'\xffx',
      'd': np.arange(2),
    }
  )
  assert json.loads(text) == {
    'a': [None, None, 3, [1.5]],
    'b': '2026-01-01',
    'c': '\ufffdx',
    'd': [0, 1],
  }
