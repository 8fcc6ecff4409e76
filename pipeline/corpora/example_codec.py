"""Raw examples as bytes, and back bit for bit: all that readers produce.

Msgpack with types of its own, never pickle: what is read is data, whoever has
written it.
"""

from collections.abc import Callable
import datetime
import decimal
import io
from typing import Any, NamedTuple
import uuid

import jax
import msgpack
import numpy as np
import pyarrow as pa

from pipeline.storage import array_bytes

# Arrays and numpy's scalars: by the name of the dtype as flax writes them, in
# numpy's format those without one, by items those of objects.
_NAMED_ARRAY, _NAMED_SCALAR = 1, 3
_NPY_ARRAY, _NPY_SCALAR, _OBJECT_ARRAY = 4, 5, 6
_LARGE_INT = 7
# JSON has halves of surrogate pairs.
_TEXT_ERRORS = 'surrogatepass'


def encode(value: Any) -> bytes:
  """Numbers, texts, dates, arrays, None, and dicts, lists, tuples of them.

  Raises:
    TypeError: There is something else in it.
  """
  try:
    return msgpack.packb(
      value, default=_pack, strict_types=True, unicode_errors=_TEXT_ERRORS
    )
  except (ValueError, OverflowError) as error:
    raise TypeError(str(error)) from error


def decode(data: bytes) -> Any:
  """What `encode` was given; arrays may be written to.

  Raises:
    ValueError: It is something else.
  """
  try:
    return msgpack.unpackb(
      data,
      ext_hook=_unpack,
      strict_map_key=False,
      unicode_errors=_TEXT_ERRORS,
    )
  except (TypeError, ArithmeticError, msgpack.UnpackException) as error:
    raise ValueError(str(error)) from error


class _Kind(NamedTuple):
  """How values of a type of Python are written: as simpler ones."""

  code: int
  simplify: Callable[[Any], Any]
  restore: Callable[[Any], Any]


def _pack(value: Any) -> msgpack.ExtType:
  if isinstance(value, np.ndarray | np.generic | jax.Array):
    return _pack_array(value)
  if type(value) is int:
    return msgpack.ExtType(_LARGE_INT, f'{value:x}'.encode())
  if kind := _KINDS.get(type(value)):
    return msgpack.ExtType(kind.code, encode(kind.simplify(value)))
  raise TypeError(f'it holds {type(value).__module__}.{type(value).__name__}')


def _unpack(code: int, data: bytes) -> Any:
  if code == _LARGE_INT:
    return int(data, 16)
  if code in _RESTORE:
    return _RESTORE[code](decode(data))
  if code == _OBJECT_ARRAY:
    shape, items = decode(data)
    flat = np.empty(len(items), object)
    flat[:] = items
    return flat.reshape(shape)
  if code in (_NAMED_ARRAY, _NAMED_SCALAR):
    shape, name, content = decode(data)
    array = np.frombuffer(content, np.dtype(name)).reshape(shape).copy()
  elif code in (_NPY_ARRAY, _NPY_SCALAR):
    array = array_bytes.read_npy(data)
  else:
    raise ValueError(f'type {code} is not known')
  return array[()] if code in (_NAMED_SCALAR, _NPY_SCALAR) else array


def _pack_array(value: Any) -> msgpack.ExtType:
  array = np.asarray(value)
  is_scalar = isinstance(value, np.generic)
  dtype = array.dtype
  if dtype.kind == 'O':
    content = encode([array.shape, array.reshape(-1).tolist()])
    return msgpack.ExtType(_OBJECT_ARRAY, content)
  if _is_named(dtype):
    content = encode([list(array.shape), dtype.name, array.tobytes()])
    code = _NAMED_SCALAR if is_scalar else _NAMED_ARRAY
    return msgpack.ExtType(code, content)
  if np.lib.format.descr_to_dtype(np.lib.format.dtype_to_descr(dtype)) != dtype:
    raise TypeError(f'it holds an array of {dtype}')
  stream = io.BytesIO()
  np.lib.format.write_array(stream, array, allow_pickle=False)
  code = _NPY_SCALAR if is_scalar else _NPY_ARRAY
  return msgpack.ExtType(code, stream.getvalue())


def _is_named(dtype: np.dtype) -> bool:
  """Whether the name of a dtype is enough to know it."""
  try:
    return np.dtype(dtype.name) == dtype
  except TypeError:
    return False


def _simplify_datetime(value: datetime.datetime) -> list[Any]:
  """A time of a zone as that of UTC, with the zone."""
  zone = value.tzinfo
  if zone is None:
    return [value.isoformat(), value.fold, None]
  if type(zone) is datetime.timezone:
    offset = value.utcoffset()
    return [value.replace(tzinfo=None).isoformat(), value.fold, offset]
  utc = value.astimezone(datetime.UTC).replace(tzinfo=None)
  return [utc.isoformat(), value.fold, pa.lib.tzinfo_to_string(zone)]


def _restore_datetime(content: list[Any]) -> datetime.datetime:
  text, fold, zone = content
  value = datetime.datetime.fromisoformat(text)
  if isinstance(zone, datetime.timedelta):
    value = value.replace(tzinfo=datetime.timezone(zone))
  elif zone is not None:
    utc = value.replace(tzinfo=datetime.UTC)
    value = utc.astimezone(pa.lib.string_to_tzinfo(zone))
  return value.replace(fold=fold)


def _simplify_time(value: datetime.time) -> list[Any]:
  if value.tzinfo:
    raise TypeError('it holds a time of day of a zone')
  return [value.isoformat(), value.fold]


_KINDS = {
  complex: _Kind(2, lambda x: [x.real, x.imag], lambda x: complex(*x)),
  tuple: _Kind(8, list, tuple),
  decimal.Decimal: _Kind(9, str, decimal.Decimal),
  uuid.UUID: _Kind(10, lambda x: x.bytes, lambda x: uuid.UUID(bytes=x)),
  datetime.datetime: _Kind(11, _simplify_datetime, _restore_datetime),
  datetime.date: _Kind(
    12, datetime.date.isoformat, datetime.date.fromisoformat
  ),
  datetime.time: _Kind(
    13,
    _simplify_time,
    lambda x: datetime.time.fromisoformat(x[0]).replace(fold=x[1]),
  ),
  datetime.timedelta: _Kind(
    14,
    lambda x: [x.days, x.seconds, x.microseconds],
    lambda x: datetime.timedelta(*x),
  ),
}
_RESTORE = {kind.code: kind.restore for kind in _KINDS.values()}
