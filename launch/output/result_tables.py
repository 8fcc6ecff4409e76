"""Tables of results: on the terminal, and as files."""

from collections.abc import Sequence
import json
from typing import Any, BinaryIO

import pyarrow as pa
from pyarrow import csv
import pyarrow.parquet as pq

from influence_core import errors
from launch.output import console as console_lib
from pipeline.storage import files as storage, output_places

# Layers, and tokens, that are printed beside a score.
_NUM_SHOWN = 3
_NUM_TOKENS_SHOWN = 5


def check_table_file(
  path: str | None, endings: Sequence[str] = ('.parquet', '.csv')
) -> None:
  """Checks that results can be written to a file, before any work for it.

  Args:
    path: of the file; None for none.
    endings: of names, one for each format.

  Raises:
    errors.InputError: It is of no known format, belongs to an index or a
      basis, or cannot be written.
  """
  if path is None:
    return
  if not path.endswith(tuple(endings)):
    *others, last = endings
    raise errors.InputError(
      f'out is {path}, expected a name that ends in {", ".join(others)} or '
      f'{last}'
    )
  output_places.check(path, 'results')
  storage.check_writable(storage.absolute(path).rpartition('/')[0])


def write_table(path: str, table: pa.Table) -> None:
  """Writes a table as one file, Parquet or CSV, replacing an older one."""
  with storage.open_for_writing(path) as file:
    encode(file, path, table)


def encode(file: BinaryIO, name: str, table: pa.Table) -> None:
  """Writes a table as CSV or Parquet, by the end of a name."""
  if name.endswith('.csv'):
    csv.write_csv(_flat(table), file)
  else:
    pq.write_table(table, file, compression='zstd')


def _flat(table: pa.Table) -> pa.Table:
  """Layers as columns by_layer.NAME, and lists of tokens as JSON."""
  for number, field in enumerate(table.schema):
    if pa.types.is_list(field.type):
      lists = table[number].to_pylist()
      texts = pa.array([json.dumps(x, ensure_ascii=False) for x in lists])
      table = table.set_column(number, field.name, texts)
  return table.flatten()


def print_rows(
  console: console_lib.Console, title: str, table: pa.Table
) -> None:
  """Prints a table, numbers with four significant digits."""
  if table.num_rows:
    console.table(
      title,
      table.column_names,
      [[_format(value) for value in row.values()] for row in table.to_pylist()],
    )


def _format(value: Any) -> str:
  if isinstance(value, dict):  # Of these, the largest.
    largest = sorted(value, key=lambda name: -abs(value[name]))[:_NUM_SHOWN]
    return ', '.join(f'{name} {value[name]:.3g}' for name in largest)
  if isinstance(value, list):  # Tokens: the same.
    largest = sorted(value, key=lambda token: -abs(token['score']))
    return ', '.join(
      f'{token["text"]!r} {token["score"]:.3g}'
      for token in largest[:_NUM_TOKENS_SHOWN]
    )
  return f'{value:.4g}' if isinstance(value, float) else str(value)
