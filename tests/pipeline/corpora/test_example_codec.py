"""Raw examples come back bit for bit, whatever a reader can produce."""

import collections
import datetime
import decimal
import enum
import json
import math
import uuid
import zoneinfo

from flax import serialization
import hypothesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import FileCorpus
from pipeline.corpora import example_codec

ZONES = (
  zoneinfo.ZoneInfo('Europe/Berlin'),
  zoneinfo.ZoneInfo('UTC'),
  datetime.UTC,
  datetime.timezone(datetime.timedelta(hours=-3, microseconds=7)),
)
DTYPES = (
  hnp.boolean_dtypes()
  | hnp.integer_dtypes()
  | hnp.floating_dtypes()
  | hnp.complex_number_dtypes()
  | hnp.datetime64_dtypes()
  | hnp.timedelta64_dtypes()
  | hnp.byte_string_dtypes()
  | hnp.unicode_string_dtypes()
)
ARRAYS = hnp.arrays(
  DTYPES | hnp.array_dtypes(DTYPES, allow_subarrays=True),
  hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
LEAVES = st.one_of(
  st.none(),
  st.booleans(),
  st.integers(),
  st.floats(),
  st.complex_numbers(),
  st.text(st.characters()),
  st.binary(),
  st.dates(),
  st.times(),
  st.timedeltas(),
  st.datetimes(),
  st.datetimes(
    min_value=datetime.datetime(1900, 1, 1),
    max_value=datetime.datetime(2200, 1, 1),
    timezones=st.sampled_from(ZONES),
    allow_imaginary=False,
  ),
  st.decimals(),
  st.uuids(),
  ARRAYS,
  ARRAYS.filter(lambda x: x.size).map(lambda x: x.reshape(-1)[0]),
)


def _object_array(items):
  flat = np.empty(len(items), object)
  flat[:] = items
  return flat.reshape(1, -1)


VALUES = st.recursive(
  LEAVES,
  lambda own: (
    st.lists(own, max_size=3)
    | st.lists(own, max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3) | st.integers(), own, max_size=3)
    | st.lists(own, max_size=3).map(_object_array)
  ),
  max_leaves=6,
)


def assert_same(one, other):
  assert type(one) is type(other)
  if isinstance(one, dict):
    assert list(one) == list(other)
    one, other = [*one.values()], [*other.values()]
  if isinstance(one, np.ndarray | np.generic):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    if one.dtype != object:
      assert one.tobytes() == other.tobytes()
      return
    one, other = one.reshape(-1).tolist(), other.reshape(-1).tolist()
  if isinstance(one, list | tuple):
    for pair in zip(one, other, strict=True):
      assert_same(*pair)
  elif isinstance(one, float | complex | decimal.Decimal):
    assert repr(one) == repr(other)
  else:
    assert one == other
    if isinstance(one, datetime.datetime):
      assert (one.tzinfo, one.fold) == (other.tzinfo, other.fold)


@hypothesis.settings(deadline=None)
@hypothesis.given(VALUES)
def test_values_come_back_as_they_were(value):
  assert_same(value, example_codec.decode(example_codec.encode(value)))


@pytest.mark.parametrize(
  'value',
  [
    np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3),
    ml_dtypes.bfloat16(1.5),
    np.arange(3, dtype=ml_dtypes.float8_e4m3fn),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(6)[::2],
    np.datetime64('NaT'),
    np.float64('nan'),
    math.nan,
    2**64,
    -(2**200),
    '\ud800',
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=ZONES[0]),
  ],
)
def test_values_that_are_rare(value):
  assert_same(value, example_codec.decode(example_codec.encode(value)))


def test_arrays_may_be_written_to():
  for array in (np.arange(3), np.arange(3).astype('>i4'), jnp.arange(3)):
    found = example_codec.decode(example_codec.encode({'x': array}))
    found['x'][0] = 7
    assert found['x'].tolist() == [7, 1, 2]


def test_what_flax_wrote_is_read():
  value = {'x': np.arange(6).reshape(2, 3), 'y': np.float32(2), 'z': 1 + 2j}
  data = serialization.msgpack_serialize(value)
  assert_same(value, example_codec.decode(data))


class _Colour(enum.IntEnum):
  RED = 1


_Point = collections.namedtuple('_Point', 'x y')


@pytest.mark.parametrize(
  'value',
  [
    {1, 2},
    object(),
    _Colour.RED,
    _Point(1, 2),
    np.array([{1}], object),
    np.array([(1, {})], [('a', int), ('b', object)]),
    datetime.time(1, tzinfo=datetime.UTC),
  ],
)
def test_others_are_refused(value):
  with pytest.raises(TypeError):
    example_codec.encode([{'a': value}])


def every_type() -> pa.Table:
  """A row of each type of Arrow that Parquet has, and a row of nulls."""
  moment = datetime.datetime(2024, 2, 29, 12, 30, 1, 5)
  day, noon = moment.date(), moment.time()
  values = {
    pa.null(): None,
    pa.bool_(): True,
    pa.uint64(): 2**64 - 1,
    pa.float16(): np.float16(0.5),
    pa.float64(): math.inf,
    pa.string(): 'ä',
    pa.large_binary(): b'\xff',
    pa.binary(2): b'ab',
    pa.date32(): day,
    pa.date64(): day,
    pa.time32('ms'): noon.replace(microsecond=1000),
    pa.time64('us'): noon,
    pa.time64('ns'): noon,
    pa.timestamp('s'): moment.replace(microsecond=0),
    pa.timestamp('us'): moment,
    pa.timestamp('us', 'Europe/Berlin'): moment,
    pa.timestamp('us', '+02:30'): moment,
    pa.timestamp('ns', 'UTC'): 10**18 + 1,
    pa.duration('us'): datetime.timedelta(days=-1, microseconds=1),
    pa.duration('ns'): 1001,
    pa.decimal128(10, 3): decimal.Decimal('-1.500'),
    pa.decimal256(50, 2): decimal.Decimal('1e40'),
    pa.uuid(): uuid.UUID(int=7).bytes,
    pa.list_(pa.timestamp('us')): [moment],
    pa.list_(pa.duration('ns')): [1001],
    pa.list_(pa.time64('us')): [noon],
    pa.list_(pa.bool_()): [True, None],
    pa.list_(pa.list_(pa.string())): [['a', None], []],
    pa.map_(pa.string(), pa.date32()): [('a', day)],
    pa.struct([('a', pa.decimal128(3, 1)), ('b', pa.list_(pa.int8()))]): {
      'a': decimal.Decimal('1.5'),
      'b': [1],
    },
  }
  return pa.table(
    {
      f'{number} {kind}': pa.array([value, None], kind)
      for number, (kind, value) in enumerate(values.items())
    }
  )


@pytest.mark.parametrize('kind', ['parquet', 'arrow'])
def test_rows_of_every_type_come_back(tmp_path, kind):
  table = every_type()
  path = str(tmp_path / f'a.{kind}')
  if kind == 'parquet':
    pq.write_table(table, path)
  else:
    with pa.ipc.new_file(path, table.schema) as writer:
      writer.write_table(table)
  rows = [raw for _, raw in FileCorpus(path).read_positions([0, 1])]
  for row in rows:
    assert isinstance(row, dict), row
    assert_same(row, example_codec.decode(example_codec.encode(row)))
  assert [x for x in rows[1].values() if x is not None] == ['a.' + kind + '__1']
  nanoseconds = [x for x in rows[0].values() if isinstance(x, np.generic)]
  assert nanoseconds == [
    np.timedelta64(45001000005000, 'ns'),
    np.datetime64(10**18 + 1, 'ns'),
    np.timedelta64(1001, 'ns'),
  ]


def test_json_of_every_type_comes_back(tmp_path):
  line = (
    '{"a": [1, -2.5, null, true, {"b": "\\ud800"}], "c": 1' + '0' * 30 + '}'
  )
  (tmp_path / 'a.jsonl').write_text(line)
  [(_, raw)] = FileCorpus(str(tmp_path / 'a.jsonl')).read_positions([0])
  assert_same(raw, example_codec.decode(example_codec.encode(raw)))
  assert raw['c'] == json.loads(line)['c'] == 10**30
