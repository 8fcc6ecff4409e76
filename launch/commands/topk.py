"""`influence topk`: proponents and opponents of queries."""

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.projection import projector as gradient_projection
from influence_core.projection.options import ProjectionOptions
from influence_core.scores import influence as influence_scores, top_k
from influence_core.scores.options import ScoreOptions
from launch.output import (
  console as console_lib,
  error_lines,
  result_tables,
  search_notes,
)
from pipeline.bases import stored_basis
from pipeline.beam import runner_options, scan_on_beam as search_on_beam
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.search import (
  certify as certify_lib,
  reprojection,
  retrieve,
  row_blocks,
  scan as scan_lib,
  selection as selection_lib,
)
from pipeline.tasks import checked_projector, loaded_task, queries
from pipeline.tasks.reference import TaskReference

_NUM_PRINTED = 3
# Examples projected again at a time, at least.
_CERTIFIED_BATCH = 128


def run(
  console: console_lib.Console,
  *,
  task: TaskReference,
  index: str,
  query_split: str,
  k: int,
  basis: str | None,
  projection_options: ProjectionOptions,
  out: str | None,
  options: ScoreOptions,
  selection: selection_lib.Selection,
  exclude_self: bool = False,
  certify: bool = False,
  engine: str | None = None,
  num_workers: int = 2,
  beam_arguments: Sequence[str] = (),
) -> dict[str, Any]:
  """Projects the queries and scans the index once for all of them."""
  top_k.check_k(k)
  runner_options.check_num_workers(num_workers)
  result_tables.check_table_file(out)
  if projection_options.batch_size is not None:
    gradient_projection.check_batch_size(projection_options.batch_size)
  beam_options = None
  if engine or beam_arguments:
    beam_options = runner_options.make_options(
      engine or 'local', num_workers, beam_arguments, tell=console.tell
    )
  opened = index_reader.Index(index)
  row_blocks.check_selection(opened, selection)
  influence_scores.inverse_eigenvalues(opened.eigenvalues, options)
  search_notes.tell_before(console, opened, k=k, options=options)
  record, loaded = load_task(opened, task, basis)
  batch = queries.read(loaded, query_split)
  projector = checked_projector.make_projector(
    loaded,
    stored_basis.load(record).eigenvectors,
    projection_options,
    num_examples=max(len(batch.ids), certify * _CERTIFIED_BATCH),
  )
  search = retrieve.search
  if certify:
    search = functools.partial(
      certify_lib.search,
      exact_vectors=reprojection.Reprojection(opened, loaded, projector),
    )
  projections = queries.project(batch, projector, record.query_ids)
  if exclude_self:
    selection = dataclasses.replace(selection, excluded_ids=tuple(batch.ids))
  with console.stage('topk') as progress, error_lines.engine_told():
    scan = scan_lib.scan
    if beam_options:
      scan = functools.partial(search_on_beam.scan, runner_options=beam_options)
    found = search(
      opened,
      projections,
      k=k,
      options=options,
      selection=selection,
      scan=scan,
      progress=progress,
    )
  table = result_tables.influence_table(opened, batch.ids, found)
  if out:
    result_tables.write_table(out, table)
  search_notes.tell_after(console, table, selection.where)
  _print_first(console, table, len(batch.ids))
  return {
    'index': opened.path,
    'generation': opened.generation,
    'num_queries': len(batch.ids),
    'out': out,
    # What they are, in the columns that tasks tell of examples.
    'queries': pa.table({'id': batch.ids, **batch.columns}).to_pylist(),
    # Of single queries there is none.
    'self_influence': [
      row
      for result in found.values()
      if not record.query_ids
      for row in result_tables.self_influence_table(
        opened, result.self_influence
      ).to_pylist()
    ],
    # With --out they are there, and may be too many for a document.
    'results': None if out else table.to_pylist(),
  }


def load_task(
  opened: index_reader.Index,
  task: TaskReference,
  basis: str | None,
) -> tuple[stored_basis.BasisRecord, loaded_task.LoadedTask]:
  """The basis and the task of an index, checked to belong to it."""
  record = stored_basis.load_record(basis or opened.manifest.provenance.basis)
  loaded = loaded_task.LoadedTask.unchecked(
    task.selecting(record.config['parameter_paths']),
    probe=stored_basis.load_probe(record),
  )
  manifest_lib.check_provenance(
    opened.path,
    opened.manifest.provenance,
    {**loaded.fingerprints, 'basis': record.fingerprint},
  )
  loaded.check_loss()
  return record, loaded


def projected_queries(
  opened: index_reader.Index, task: TaskReference, query_split: str
) -> tuple[loaded_task.LoadedTask, loaded_task.ExampleBatch, np.ndarray]:
  """The task of an index, the queries of a split and their projections.

  Args:
    opened: the index.
    task: its function; arguments that are not given are those that the index
      was made with, such as the epochs that it is summed over.
    query_split: TFDS split.
  """
  made_with = opened.manifest.provenance.task
  if made_with['import_path'] == task.import_path:
    arguments = {**made_with['arguments'], **task.arguments}
    task = dataclasses.replace(task, arguments=arguments)
  record, loaded = load_task(opened, task, None)
  batch = queries.read(loaded, query_split)
  projector = checked_projector.make_projector(
    loaded,
    stored_basis.load(record).eigenvectors,
    ProjectionOptions(),
    num_examples=len(batch.ids),
  )
  projections = queries.project(batch, projector, record.query_ids)
  return loaded, batch, projections


def _print_first(
  console: console_lib.Console, table: pa.Table, num_queries: int
) -> None:
  """Prints the results of the first queries."""
  names = table['query_id'].to_numpy(zero_copy_only=False)
  firsts = np.flatnonzero(names[1:] != names[:-1]) + 1
  stop = firsts[_NUM_PRINTED - 1] if len(firsts) >= _NUM_PRINTED else None
  result_tables.print_rows(
    console,
    'influence: positive = proponent = up-weighting it lowers the query loss',
    table.slice(0, stop),
  )
  if stop is not None:
    console.print(
      f'... and {num_queries - _NUM_PRINTED} more queries; --out and '
      '--json give them all'
    )
