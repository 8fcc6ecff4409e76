"""Results of queries as rows: for the terminal, JSON and Parquet alike."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from launch import console as console_lib
from pipeline import loaded_task, retrieve, storage


def influence_rows(
  index: retrieve.Index,
  queries: loaded_task.ExampleBatch,
  leaders: Mapping[str, retrieve.TopExamples],
) -> list[dict[str, Any]]:
  """One row per query, kind and rank.

  Args:
    index: that was searched.
    queries: the queries, in the order of the leaders.
    leaders: by kind: 'proponent' and 'opponent'.

  Returns:
    Rows with query_id, kind, rank (from 1), id, score and the columns of the
    example; query by query, best first.
  """
  examples = index.rows_at(
    position for top in leaders.values() for position in top.positions.flat
  )
  return [
    {
      'query_id': query_id,
      'kind': kind,
      'rank': rank + 1,
      'score': float(score),
      **examples[int(position)],
    }
    for number, query_id in enumerate(queries.ids)
    for kind, top in leaders.items()
    for rank, (score, position) in enumerate(
      zip(top.scores[number], top.positions[number], strict=True)
    )
  ]


def self_influence_rows(
  index: retrieve.Index, leaders: retrieve.TopExamples
) -> list[dict[str, Any]]:
  """One row per rank: rank, score and the columns of the example."""
  examples = index.rows_at(leaders.positions[0])
  return [
    {'rank': rank + 1, 'score': float(score), **examples[int(position)]}
    for rank, (score, position) in enumerate(
      zip(leaders.scores[0], leaders.positions[0], strict=True)
    )
  ]


def write_parquet(path: str, rows: Sequence[Mapping[str, Any]]) -> None:
  """Writes rows as one Parquet file, replacing an older one."""
  table = pa.Table.from_pylist(list(rows))
  with storage.open_for_writing(path) as file:
    pq.write_table(table, file, compression='zstd')


def print_rows(
  console: console_lib.Console,
  title: str,
  rows: Sequence[Mapping[str, Any]],
) -> None:
  """Prints rows as a table, numbers with four significant digits."""
  if not rows:
    return
  columns = list(rows[0])
  console.table(
    title,
    columns,
    [[_format(row[column]) for column in columns] for row in rows],
  )


def _format(value: Any) -> str:
  return f'{value:.4g}' if isinstance(value, float) else str(value)
