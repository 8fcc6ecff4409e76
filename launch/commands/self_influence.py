"""`influence self-influence`: the examples a model had to memorise."""

from typing import Any

from influence_core import influence_scores
from launch import console as console_lib
from launch import result_tables
from pipeline import index_reader, self_influence


def run(
  console: console_lib.Console,
  *,
  index: str,
  k: int,
  out: str | None,
  options: influence_scores.ScoreOptions,
) -> dict[str, Any]:
  """Scans the index for the highest self-influence."""
  opened = index_reader.Index(index)
  with console.stage('self-influence') as progress:
    leaders = self_influence.top(
      opened, k=k, options=options, progress=progress
    )
  table = result_tables.self_influence_table(opened, leaders)
  if out:
    result_tables.write_parquet(out, table)
  result_tables.print_rows(
    console, 'self-influence: mislabelled and atypical examples first', table
  )
  return {
    'index': opened.path,
    'generation': opened.generation,
    'out': out,
    'results': table.to_pylist(),
  }
