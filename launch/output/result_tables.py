"""Results of queries as tables: for the terminal, JSON and Parquet alike."""

from collections.abc import Iterable, Mapping, Sequence
import json
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from pyarrow import csv
import pyarrow.parquet as pq

from influence_core import errors
from launch.output import console as console_lib
from pipeline.index import members as members_lib
from pipeline.search import by_token, retrieve
from pipeline.storage import files as storage, output_places

# Layers, and tokens, that are printed beside a score.
_NUM_SHOWN = 3
_NUM_TOKENS_SHOWN = 5


def influence_table(
  index: members_lib.Searched,
  query_ids: Sequence[str],
  found: Mapping[object, retrieve.Found],
) -> pa.Table:
  """One row per query, kind and rank.

  Args:
    index: that was searched.
    query_ids: of the queries, in the order of what was found.
    found: from `retrieve.search`.

  Returns:
    Columns query_id, kind ('proponent' or 'opponent'), rank (from 1), score,
    error_bound or certified of an index in low precision, by_layer (a field
    for each layer), tokens and query_tokens (lists of text and score) where
    they were asked for, and those of the examples; query by query, best first
    in each group.
  """
  nothing = retrieve.no_result(len(query_ids))
  parts = [
    _ranked(query_ids, kind, top)
    for result in found.values() or [nothing]
    for kind, top in (
      ('proponent', result.proponents),
      ('opponent', result.opponents),
    )
  ]
  table = pa.concat_tables(parts)
  rows = _rows_at(index, table['position'].to_numpy())
  # Stable: groups and kinds stay in order within a query.
  order = np.argsort(table['query'].to_numpy(), kind='stable')
  table = _beside(table.drop(['query', 'position']), rows)
  return table.take(pa.array(order))


def self_influence_table(
  index: members_lib.Searched, top: retrieve.TopExamples
) -> pa.Table:
  """One row per rank: those columns, but for query_id and kind."""
  table = _ranked([''], '', top)
  rows = _rows_at(index, table['position'].to_numpy())
  return _beside(table.drop(['query_id', 'kind', 'query', 'position']), rows)


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


def _ranked(
  query_ids: Sequence[str], kind: str, top: retrieve.TopExamples
) -> pa.Table:
  """Leaders as rows, with the number of the query and the position."""
  queries, ranks = np.nonzero(top.positions != retrieve.NO_POSITION)
  ids = pa.array(query_ids, pa.string())
  more = {
    name: pa.array(values[queries, ranks])
    for name, values in (
      ('error_bound', top.error_bounds),
      ('certified', top.certified),
    )
    if values is not None
  }
  if top.by_layer is not None:
    shares = [x[queries, ranks] for x in top.by_layer.values()]
    more['by_layer'] = pa.StructArray.from_arrays(shares, list(top.by_layer))
  for name in ('tokens', 'query_tokens'):
    if (tokens := getattr(top, name)) is not None:
      more[name] = _token_lists(tokens[queries, ranks])
  return pa.table(
    {
      'query_id': ids.take(pa.array(queries)),
      'kind': pa.array([kind], pa.string()).take(
        pa.array(np.zeros(len(queries), np.int64))
      ),
      'rank': pa.array(ranks + 1),
      'score': pa.array(top.scores[queries, ranks]),
      **more,
      'query': pa.array(queries),
      'position': pa.array(top.positions[queries, ranks]),
    }
  )


def _token_lists(tokens: Iterable[by_token.Tokens]) -> pa.Array:
  """A list of texts and scores for each row."""
  lists = [
    [
      {'text': text, 'score': score}
      for text, score in zip(own.texts, own.scores.tolist(), strict=True)
    ]
    for own in tokens
  ]
  kind = pa.struct({'text': pa.string(), 'score': pa.float64()})
  return pa.array(lists, pa.list_(kind))


def _rows_at(index: members_lib.Searched, positions: np.ndarray) -> pa.Table:
  """Rows of examples, each read once however often it was found."""
  unique, inverse = np.unique(positions, return_inverse=True)
  return index.rows(unique).take(pa.array(inverse))


def _beside(table: pa.Table, rows: pa.Table) -> pa.Table:
  """Columns of the rows after those of the table, under names of their own."""
  for name in rows.column_names:
    taken = name in table.column_names
    table = table.append_column(
      f'example_{name}' if taken else name, rows[name]
    )
  return table


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
