"""`influence self-influence`: the examples a model had to memorise."""

from typing import Any

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  result_tables,
  search_notes,
)
from pipeline.search import (
  row_blocks,
  selection as selection_lib,
  self_influence,
  tables,
)
from pipeline.search.open_index import open_ensemble


def run(
  console: console_lib.Console,
  *,
  indexes: list[str],
  scales: list[float] | None,
  k: int,
  where: str | None,
  by_layer: bool,
  out: str | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Scans the indexes for the highest self-influence."""
  errors.check_at_least_one(k=k)
  result_tables.check_table_file(out)
  opened = open_ensemble(indexes, scales=scales)
  selection = selection_lib.Selection(where=where)
  row_blocks.check_selection(opened, selection)
  search_notes.tell_before(console, opened, k=k, options=options)
  basis_notes.tell_of_index(console, opened)
  with console.stage('self-influence') as progress:
    leaders = self_influence.top(
      opened,
      k=k,
      options=options,
      selection=selection,
      by_layer=by_layer,
      progress=progress,
    )
  table = tables.self_influence_table(opened, leaders)
  if out:
    result_tables.write_table(out, table)
  search_notes.tell_after(console, table, where)
  result_tables.print_rows(
    console, 'self-influence: mislabelled and atypical examples first', table
  )
  return {
    **search_notes.searched(opened),
    'out': out,
    'results': table.to_pylist(),
  }
