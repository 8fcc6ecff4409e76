import pyarrow as pa
import pytest

from influence_core import errors
from pipeline.search import row_filter

ROWS = pa.table(
  {
    'id': ['a', 'b', 'c'],
    'label': [3, 4, None],
    'length': pa.array([50, 2, 3], pa.int32()),
  }
)


@pytest.mark.parametrize(
  ('condition', 'expected'),
  [
    ('label = 3 and length < 40', [False, False, False]),
    ('label = 3 or length < 3', [True, True, False]),
    ('label <> 3', [False, True, False]),  # Unknown is not true.
    ("id in ('a', 'c')", [True, False, True]),
    ('length', [True, True, True]),
  ],
)
def test_rows_that_meet_a_condition(condition, expected):
  found = row_filter.RowFilter(condition, ROWS.schema).matches(ROWS)
  assert found.tolist() == expected


@pytest.mark.parametrize(
  ('condition', 'message'),
  [
    ('lable = 3', 'columns are id string, label int64, length int32'),
    ('label =', 'syntax error'),
    ("id = 'a'; drop table x", 'syntax error'),
    ('count(*) > 1', 'it is not one value for each row'),
    ('unnest([true, false])', 'it is not one value for each row'),
    ("id in (select * from read_text('/etc/passwd'))", 'cannot be used'),
    ('id + 1', 'cannot be used'),
  ],
)
def test_bad_conditions_are_told_before_work_starts(condition, message):
  with pytest.raises(errors.InputError, match='--where') as caught:
    row_filter.RowFilter(condition, ROWS.schema)
  assert message in str(caught.value)
