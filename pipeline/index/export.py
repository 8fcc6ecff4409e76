"""A published generation as one file that other tools read."""

from collections.abc import Callable, Iterator
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from influence_core import errors, types
from influence_core.devices import memory as device_memory
from influence_core.scores.options import ScoreOptions
from influence_core.subspaces import columns as columns_lib
from pipeline.index import block_reader, choices, reader as index_reader
from pipeline.storage import disk_room, files as storage

PROJECTION_COLUMN = 'projection'


def export(
  index: index_reader.Index,
  path: str,
  file_format: choices.ExportFormat,
  *,
  options: ScoreOptions,
  progress: types.ProgressCallback = types.no_progress,
) -> None:
  """Writes a generation as one file, which appears when it is whole.

  parquet: the rows, and projections as a list column.
  npy: projections, [num_examples, projection_dim] float32; row i is position i.
  faiss: an IndexFlatIP of projections divided by the square roots of the
    eigenvalues. Inner products with queries that are divided likewise are
    influences.

  Which columns are of which layers, of a basis of layers, is said as in
  `Index.schema`: in the metadata of Parquet; of the others, in a file of JSON
  beside them, PATH.layers.json.

  Args:
    index: the generation.
    path: of the file, replaced if it is there.
    file_format: one of the above.
    options: how eigenvalues are used; for faiss only.
    progress: called with the number of examples written.

  Raises:
    errors.InputError: The file cannot be written, faiss is not installed, or
      the rows have a column 'projection' already.
  """
  writers: dict[str, Callable] = {
    'parquet': _write_parquet,
    'npy': _write_npy,
    'faiss': _write_faiss,
  }
  errors.check_choice('format', file_format, choices.ExportFormat)
  _check_room(index, path, file_format)
  if file_format != 'parquet':
    _write_layers(index, f'{path}.layers.json')
  writers[file_format](index, path, options, progress)


def _check_room(
  index: index_reader.Index, path: str, file_format: choices.ExportFormat
) -> None:
  """Refuses a file that memory or the disk has no room for.

  Raises:
    errors.InputError: Names what is needed and what there is.
  """
  num_bytes = 4 * index.num_examples * len(index.eigenvalues)
  if file_format == 'faiss':
    device_memory.check_host_memory(
      2 * num_bytes,  # faiss has all, and so has the file before it is written.
      f'a FAISS index of {index.num_examples:,} examples',
      'export npy, which is written block by block',
    )
  disk_room.check_room(path, num_bytes)


def _write_layers(index: index_reader.Index, path: str) -> None:
  """Writes what columns stand for; without layers no older file is left."""
  if not index.layers:
    storage.remove(path)
    return
  with storage.open_for_writing(path) as file:
    file.write(json.dumps(columns_lib.to_json(index.layers), indent=1).encode())


def _write_parquet(index, path: str, options, progress) -> None:
  if PROJECTION_COLUMN in index.schema.names:
    raise errors.InputError(
      f'the rows have a column {PROJECTION_COLUMN!r} of their own; rename it '
      'in row_columns of the task and project again'
    )
  columns = index.schema.names
  schema = index.schema.append(
    pa.field(PROJECTION_COLUMN, pa.list_(pa.float32()))
  )
  with (
    storage.open_for_writing(path) as file,
    pq.ParquetWriter(file, schema, compression='zstd') as writer,
  ):
    for block in _blocks(index, columns, progress):
      count, dim = block.vectors.shape
      lists = pa.ListArray.from_arrays(
        pa.array(np.arange(0, (count + 1) * dim, dim, dtype=np.int32)),
        pa.array(block.vectors.reshape(-1)),
      )
      table = block.rows.append_column(PROJECTION_COLUMN, lists)
      writer.write_table(_cast(table, schema))


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
  """Rows in the schema of all; an older version did not see to that.

  Raises:
    errors.InputError: Names a column that is of another type.
  """
  columns = []
  for field in schema:
    try:
      columns.append(table[field.name].cast(field.type))
    except pa.ArrowException as error:
      raise errors.InputError(
        f'the column {field.name!r} is {table[field.name].type} in some shards '
        f'and {field.type} in others; project the corpus to another --index'
      ) from error
  return pa.table(columns, schema=schema)


def _blocks(
  index: index_reader.Index,
  columns: list[str],
  progress: types.ProgressCallback,
) -> Iterator[block_reader.ReadBlock]:
  """Blocks with all columns.

  Raises:
    errors.InputError: Some shards have not all of them.
  """
  try:
    yield from index.read_blocks(columns=columns, progress=progress)
  except KeyError as error:
    raise errors.InputError(
      f'some shards of {index.path} have no such column as others have '
      f'({error.args[0]}); project the corpus to another --index'
    ) from error


def _write_npy(index, path: str, options, progress) -> None:
  header = {
    'descr': '<f4',
    'fortran_order': False,
    'shape': (index.num_examples, len(index.eigenvalues)),
  }
  with storage.open_for_writing(path) as file:
    np.lib.format.write_array_header_1_0(file, header)
    for block in index.read_blocks(progress=progress):
      file.write(np.ascontiguousarray(block.vectors, '<f4').data)


def _write_faiss(index, path: str, options, progress) -> None:
  try:
    import faiss
  except ImportError as error:
    raise errors.InputError(
      'faiss is not installed; pip install faiss-cpu'
    ) from error
  weights = index.column_weights(options)
  flat = faiss.IndexFlatIP(len(weights))
  roots = np.sqrt(weights).astype(np.float32)
  for block in index.read_blocks(progress=progress):
    flat.add(block.vectors * roots)
  with storage.open_for_writing(path) as file:
    file.write(faiss.serialize_index(flat).data)
