"""The two files of a shard as bytes: vectors as .npy, rows as Parquet."""

from collections.abc import Iterable, Mapping
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import errors
from pipeline.index import vector_codec
from pipeline.storage import (
  checked_files,
  files as storage,
  parquet_bytes,
  stored_objects,
)

# Columns of every rows file; the last one only where vectors are not exact.
ERROR_COLUMN = 'projection_error'
OWN_COLUMNS = ('id', 'loss', 'squared_gradient_norm', ERROR_COLUMN)
# Columns that rows have which are tokens of an example.
TOKEN_COLUMNS = ('position', 'token')

_METADATA_KEY = b'influence_shard'


@dataclasses.dataclass(frozen=True)
class RowsFile:
  """A rows file, read.

  Attributes:
    table: the rows.
    vectors: the file of their vectors.
    rejected: reason by id of the examples of the range that are left out.
  """

  table: pa.Table
  vectors: checked_files.StoredFile
  rejected: dict[str, str]


def check_columns(names: Iterable[str]) -> None:
  """Refuses columns of a task that would hide others.

  Conditions in SQL do not tell capital letters from small ones.

  Raises:
    errors.InputError: Names the column.
  """
  known = dict.fromkeys(OWN_COLUMNS, 'every index has already')
  for name in names:
    if taken := known.get(name.lower()):
      raise errors.InputError(
        f'row_columns gives a column {name!r}, which {taken}; give it another '
        'name'
      )
    known[name.lower()] = f'differs from {name!r} in capital letters alone'


def check_storable(columns: Mapping[str, pa.Array]) -> None:
  """Tries columns through to Parquet.

  Args:
    columns: of a few rows, by name.

  Raises:
    errors.InputError: Names the column that cannot be stored.
  """
  for name, column in columns.items():
    try:
      pq.write_table(pa.table({name: column}), pa.BufferOutputStream())
    except (pa.ArrowException, ValueError) as error:
      raise errors.InputError(
        f'row_columns gives a column {name!r} of {column.type}, which cannot '
        f'be stored ({errors.first_line(error)}); give it as a number or text'
      ) from error


def encode_vectors(stored: np.ndarray) -> bytes:
  """Rows as a codec encoded them, as a .npy file."""
  buffer = io.BytesIO()
  np.lib.format.write_array(buffer, stored, allow_pickle=False)
  return buffer.getvalue()


def vectors_header_bytes(
  num_bytes: int, num_rows: int, codec: vector_codec.VectorCodec
) -> int:
  """Where the rows begin in a vectors file of that size."""
  return num_bytes - num_rows * codec.file_dtype.itemsize


def rows_offset(
  path: str,
  start_of_file: bytes,
  num_bytes: int,
  num_rows: int,
  codec: vector_codec.VectorCodec,
) -> int:
  """Where the rows begin, once the header was checked to announce them.

  Args:
    path: named in errors.
    start_of_file: its first bytes, at least the header.
    num_bytes: size of the file.
    num_rows: rows that it must hold.
    codec: how they are stored.

  Raises:
    storage.DamagedFileError: It does not hold `num_rows` rows of that dtype.
  """
  offset = vectors_header_bytes(num_bytes, num_rows, codec)
  file = io.BytesIO(start_of_file[: max(offset, 0)])
  try:
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
      raise ValueError(f'version {version}')
    shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
  except Exception as error:  # Whatever a parser raises for damaged text.
    raise storage.DamagedFileError(f'{path} is no .npy file') from error
  row = codec.file_dtype
  expected = row.base, (num_rows, *row.shape)
  if (dtype, shape) != expected or is_fortran:
    raise storage.DamagedFileError(
      f'{path} holds {dtype} with shape {shape}, expected {expected[0]} with '
      f'shape {expected[1]}'
    )
  if file.read(1):
    raise storage.DamagedFileError(
      f'{path} is larger than its {num_rows} rows of {codec.dtype}'
    )
  return offset


def encode_rows(
  rows: pa.Table, vectors: checked_files.StoredFile, rejected: dict[str, str]
) -> bytes:
  """A rows file: compressed Parquet that names the vectors in its metadata."""
  metadata = {'vectors': dataclasses.asdict(vectors), 'rejected': rejected}
  table = rows.replace_schema_metadata(
    {_METADATA_KEY: json.dumps(metadata, sort_keys=True).encode()}
  )
  buffer = io.BytesIO()
  pq.write_table(table, buffer, compression='zstd')
  return buffer.getvalue()


def parse_rows(path: str, data: bytes) -> RowsFile:
  """Reads what `encode_rows` gave; `path` is named in errors.

  Raises:
    storage.DamagedFileError: It is something else.
  """
  table = parquet_bytes.read(path, data)
  try:
    metadata: dict[str, Any] = json.loads(table.schema.metadata[_METADATA_KEY])
    vectors = stored_objects.parse(
      checked_files.StoredFile, metadata['vectors'], path
    )
    checked_files.check_file(vectors)
    rejected = stored_objects.parse(dict[str, str], metadata['rejected'], path)
    # Each of them is read by its name later on.
    table.select(OWN_COLUMNS[:3])
    return RowsFile(table, vectors, rejected)
  except (
    pa.ArrowException,
    LookupError,
    TypeError,
    ValueError,
    RecursionError,
  ) as error:
    raise storage.DamagedFileError(
      f'{path} is no rows file of an index ({error})'
    ) from error
