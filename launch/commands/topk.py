"""`influence topk`: proponents and opponents of queries."""

from typing import Any

import numpy as np

from influence_core import errors, gradient_projection, influence_scores
from launch import console as console_lib
from launch import result_tables
from pipeline import checked_projector, loaded_task, retrieve, stored_basis
from pipeline import manifest as manifest_lib
from pipeline import task as task_lib

_NUM_PRINTED = 3


def run(
  console: console_lib.Console,
  *,
  task: task_lib.TaskReference,
  index: str,
  query_split: str,
  k: int,
  basis: str | None,
  projection_options: gradient_projection.ProjectionOptions,
  out: str | None,
  options: influence_scores.ScoreOptions,
) -> dict[str, Any]:
  """Projects the queries and scans the index once for all of them."""
  if projection_options.batch_size is not None:
    gradient_projection.check_batch_size(projection_options.batch_size)
  opened = retrieve.Index(index)
  influence_scores.inverse_eigenvalues(opened.eigenvalues, options)
  record = stored_basis.load_record(basis or opened.manifest.provenance.basis)
  loaded = loaded_task.LoadedTask.load(
    task.selecting(record.config['parameter_paths'])
  )
  manifest_lib.check_provenance(
    opened.path,
    opened.manifest.provenance,
    {**loaded.fingerprints, 'basis': record.fingerprint},
  )
  queries, projections = project_queries(
    loaded, record, query_split, projection_options
  )
  with console.stage('topk') as progress:
    leaders = retrieve.top_k(
      opened, projections, k=k, options=options, progress=progress
    )
  rows = result_tables.influence_rows(
    opened, queries, dict(zip(('proponent', 'opponent'), leaders, strict=True))
  )
  if out:
    result_tables.write_parquet(out, rows)
  num_printed = len(rows) // len(queries.ids) * _NUM_PRINTED
  result_tables.print_rows(
    console,
    'influence: positive = proponent = up-weighting it lowers the query loss',
    rows[:num_printed],
  )
  if len(rows) > num_printed:
    console.print(
      f'... and {len(queries.ids) - _NUM_PRINTED} more queries; --out and '
      '--json give them all'
    )
  return {
    'index': opened.path,
    'generation': opened.manifest.generation,
    'num_queries': len(queries.ids),
    'out': out,
    'results': rows,
  }


def project_queries(
  loaded: loaded_task.LoadedTask,
  record: stored_basis.BasisRecord,
  query_split: str,
  projection_options: gradient_projection.ProjectionOptions,
) -> tuple[loaded_task.ExampleBatch, np.ndarray]:
  """The queries of a split and their [num_queries, projection_dim] projections.

  Raises:
    errors.InputError: A query cannot be used.
  """
  corpus = loaded.task.corpus.with_split(query_split)
  corpus.check()
  queries = loaded.preprocess_batch(
    corpus.read_positions(range(corpus.num_examples))
  )
  projector = checked_projector.make_projector(
    loaded,
    stored_basis.load(record).eigenvectors,
    projection_options,
    num_examples=corpus.num_examples,
  )
  rejected = dict(queries.rejected)
  projections = np.empty((0, record.projection_dim), np.float32)
  if queries.ids:
    projections = np.asarray(projector.project(queries.features).projections)
    for example_id, row in zip(queries.ids, projections, strict=True):
      if not np.isfinite(row).all():
        rejected[example_id] = 'its gradient is not finite'
  if rejected:
    example_id, reason = next(iter(rejected.items()))
    raise errors.InputError(
      f'{len(rejected)} queries cannot be used, the first is {example_id} '
      f'({reason}); leave them out of --query_split'
    )
  return queries, projections
