"""Row columns: what a task may tell of an example, and how it is stored.

A column is one value for each example: a truth value, a number, text, a date or
a time, or None where it is missing. Names and types are decided once for a job,
from its first examples, so that all shards of an index have one schema. Later
values are converted where that loses nothing; an example with another kind of
value is left out like any that cannot be used, with its column as the reason.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import datetime
from typing import Any

import jax
import numpy as np
import pyarrow as pa

from influence_core import errors
from pipeline.index import shard_files

_EXPECTED = 'a number, text, a date, a time, true or false, or None'
# Units of numpy's dates; those of its times are shorter.
_DATE_UNITS = ('Y', 'M', 'W', 'D')
# Arrow has no Python object for shorter times.
_TIME = pa.timestamp('us')
_TIME_WITH_ZONE = pa.timestamp('us', 'UTC')
_NUMBER_TYPES: dict[pa.DataType, Any] = {
  pa.from_numpy_dtype(name): np.dtype(name).type
  for name in (
    *('int8', 'int16', 'int32', 'int64', 'uint8', 'uint16', 'uint32', 'uint64'),
    *('float16', 'float32', 'float64'),
  )
}


class UnfitColumnError(ValueError):
  """A value that no column, or not this one, can hold; names the column."""


@dataclasses.dataclass(frozen=True)
class ColumnSchema:
  """Columns of a job by name.

  Attributes:
    types: Arrow type by name, in the order of the columns.
    as_text: columns that had no value in any of the first examples. Their type
      is not known, so that whatever comes is written as text.
  """

  types: Mapping[str, pa.DataType] = dataclasses.field(default_factory=dict)
  as_text: frozenset[str] = frozenset()

  @classmethod
  def of(cls, rows: Sequence[Mapping[str, Any]]) -> 'ColumnSchema':
    """The schema of a job.

    Integers and floats in one column make a column of floats; of other kinds
    the first one decides.

    Args:
      rows: what `plain_row` made of the first examples, at least one.

    Raises:
      errors.InputError: A column has the name of one that every index has.
    """
    types: dict[str, pa.DataType | None] = {}
    for row in rows:
      for name, value in row.items():
        types[name] = _joined_type(types.get(name), value)
    shard_files.check_columns(types)
    return cls(
      {name: found or pa.string() for name, found in types.items()},
      frozenset(name for name, found in types.items() if found is None),
    )

  def convert(self, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row in this schema; a column that it lacks is missing.

    Args:
      row: from `plain_row`.

    Raises:
      UnfitColumnError: It has a column more, or a value that its column cannot
        hold without loss.
    """
    for name in row:
      if name not in self.types:
        raise UnfitColumnError(
          f'there is a column {name!r}, which the first examples have not; '
          f'they have {", ".join(self.types) or "none"}: give None where a '
          'value is missing'
        )
    return {
      name: _text(row.get(name))
      if name in self.as_text
      else _convert(name, row.get(name), arrow_type)
      for name, arrow_type in self.types.items()
    }

  def arrays(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, pa.Array]:
    """Columns of what `fitted` gave, by name."""
    return {
      name: pa.array([row[name] for row in rows], arrow_type)
      for name, arrow_type in self.types.items()
    }

  def check_same(self, rows: pa.Schema, where: str) -> None:
    """Refuses to put rows beside others of another schema.

    Args:
      rows: schema of rows that are there.
      where: names them in the message.

    Raises:
      errors.InputError: Names a column that differs.
    """
    found = {
      field.name: field.type
      for field in rows
      if field.name not in shard_files.OWN_COLUMNS
    }
    for name in dict.fromkeys([*found, *self.types]):
      old, new = found.get(name), self.types.get(name)
      # Where a whole shard had no value, older versions wrote no type either.
      if old != new and old != pa.null():
        raise errors.InputError(
          f'{where} has the column {name!r} as {old or "absent"}, the task now '
          f'gives {new or "none such"}; change the version of the task, so '
          'that all is projected again, or choose another --index'
        )


def plain_row(row: Any) -> dict[str, Any]:
  """A row with values that Arrow has types for.

  Bytes, which texts of TFDS are, become text; numpy's dates and times those of
  Python.

  Args:
    row: what `row_columns` of a task gave.

  Raises:
    UnfitColumnError: A value is nothing that a column can hold.
  """
  if not isinstance(row, Mapping):
    raise UnfitColumnError(
      f'returned {type(row).__name__}, expected a dictionary of values by name'
    )
  for name in row:
    if not isinstance(name, str):
      raise UnfitColumnError(f'column {name!r} has no text as its name')
    _checked_text(name, name)
  return {name: _plain(name, value) for name, value in row.items()}


def _plain(name: str, value: Any) -> Any:
  if value is np.ma.masked:
    return None
  if isinstance(value, (np.ndarray, jax.Array)) and value.ndim == 0:
    value = np.asarray(value)[()]
  match value:
    case bytes():
      return _decoded(name, value)
    case str():
      return _checked_text(name, str(value))
    case np.datetime64():
      return _python_time(name, value)
    case None | bool() | float() | datetime.date():
      return value
    case int() if -(2**63) <= value < 2**64:
      return value
    case np.floating() if value.itemsize == 2:
      return np.float32(value)  # What reads rows knows no shorter floats.
    case np.timedelta64():
      pass  # To numpy it is an integer.
    case np.bool_() | np.integer() | np.floating() if value.itemsize <= 8:
      return value
  if isinstance(value, int):
    raise UnfitColumnError(
      f'column {name!r} is {_shown(value)}, expected an integer of 64 bits; '
      'give it as text'
    )
  what = (
    f'an array of shape {tuple(value.shape)}'
    if isinstance(value, (np.ndarray, jax.Array))
    else type(value).__name__
  )
  raise UnfitColumnError(f'column {name!r} is {what}, expected {_EXPECTED}')


def _decoded(name: str, value: bytes) -> str:
  try:
    return value.decode()
  except UnicodeDecodeError as error:
    raise UnfitColumnError(
      f'column {name!r} is the bytes {_shown(value)}, which are no UTF-8 text; '
      'decode them in row_columns or leave the column out'
    ) from error


def _checked_text(name: str, value: str) -> str:
  try:
    value.encode()
  except UnicodeEncodeError as error:
    raise UnfitColumnError(
      f'column {name!r} is {_shown(value)}, which is no UTF-8 text; decode it '
      'in another way'
    ) from error
  return value


def _python_time(
  name: str, value: np.datetime64
) -> datetime.date | datetime.datetime | None:
  if np.isnat(value):
    return None
  unit = 'D' if np.datetime_data(value.dtype)[0] in _DATE_UNITS else 'us'
  converted = value.astype(f'datetime64[{unit}]')
  found = converted.item()
  if converted != value or not isinstance(found, datetime.date):
    raise UnfitColumnError(
      f'column {name!r} is {value}, expected a time of whole microseconds in '
      'the years 1 to 9999'
    )
  return found


def _arrow_type(value: Any) -> pa.DataType:
  """Of a plain value other than None."""
  match value:
    case np.generic():
      return pa.from_numpy_dtype(value.dtype)
    case bool():
      return pa.bool_()
    case int():
      return pa.int64() if value < 2**63 else pa.uint64()
    case float():
      return pa.float64()
    case str():
      return pa.string()
    case datetime.datetime():
      return _TIME if value.tzinfo is None else _TIME_WITH_ZONE
  return pa.date32()


def _joined_type(known: pa.DataType | None, value: Any) -> pa.DataType | None:
  """The type of a column with one more value."""
  if value is None:
    return known
  found = _arrow_type(value)
  if known is None or known == found:
    return known or found
  if {known, found} == {pa.int64(), pa.uint64()}:
    return pa.uint64()  # To numpy they have only floats in common.
  if known in _NUMBER_TYPES and found in _NUMBER_TYPES:
    return pa.from_numpy_dtype(
      np.promote_types(_NUMBER_TYPES[known], _NUMBER_TYPES[found])
    )
  return known


def _convert(name: str, value: Any, arrow_type: pa.DataType) -> Any:
  """The value as the type holds it."""
  if value is None:
    return None
  found = _arrow_type(value)
  if arrow_type in _NUMBER_TYPES and (
    found in _NUMBER_TYPES or found == pa.bool_()
  ):
    converted = _converted_number(value, _NUMBER_TYPES[arrow_type])
    if converted is not None:
      return converted
  elif found == arrow_type:
    return value
  if found == pa.date32() and arrow_type == _TIME:
    return datetime.datetime.combine(value, datetime.time())
  raise UnfitColumnError(
    f'column {name!r} is {_shown(value)}, expected {arrow_type}, as in the '
    'first examples, or None'
  )


def _converted_number(value: Any, number_type: type) -> Any:
  """The number in a numpy type, None if that is another number."""
  exact = value.item() if isinstance(value, np.generic) else value
  try:
    with np.errstate(all='ignore'):
      converted = number_type(value)
  except (OverflowError, ValueError):
    return None
  # Python compares integers with floats exactly.
  same = converted.item() == exact or (
    exact != exact and converted != converted
  )
  return converted if same else None


def _text(value: Any) -> str | None:
  if isinstance(value, datetime.date):
    return value.isoformat()
  return None if value is None else str(value)


def _shown(value: Any, limit: int = 40) -> str:
  if isinstance(value, np.generic):
    value = value.item()
  text = repr(value) if isinstance(value, (str, bytes)) else str(value)
  return text if len(text) <= limit else f'{text[:limit]}…'
