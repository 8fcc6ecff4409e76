"""What was found, as Arrow tables: for people, JSON and Parquet alike."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from pipeline.index import members as members_lib
from pipeline.search import by_token, retrieve


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
  lists = [own.pairs() for own in tokens]
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
