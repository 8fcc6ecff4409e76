"""`influence demo`: every stage on real digits, in a minute and a half."""

import json
from typing import Any

import pyarrow as pa

from influence_core import gradient_projection, influence_scores
from launch import console as console_lib
from launch import demo_report, result_tables
from launch.commands import (
  evaluate_detection,
  fit_basis,
  project,
  self_influence,
  topk,
  train_example,
)
from pipeline import (
  fit_basis_config,
  index_reader,
  row_blocks,
  storage,
)
from pipeline import manifest as manifest_lib
from pipeline import task as task_lib

_FLIPPED_FRACTION = 0.1
_NUM_SUSPICIOUS = 100
_QUERY_SPLIT = 'test[:3]'
_QUERY_K = 4
_OPTIONS = influence_scores.ScoreOptions()


def run(console: console_lib.Console, *, out: str) -> dict[str, Any]:
  """Trains, fits, projects, retrieves, evaluates and writes a report."""
  out = storage.absolute(out)
  basis, index = storage.join(out, 'basis'), storage.join(out, 'index')
  model = train_example.run(
    console,
    example='digits_cnn',
    workdir=out,
    data_dir=None,
    dataset=None,
    train_split='train',
    size=None,
    pretrained=None,
    flip_labels=_FLIPPED_FRACTION,
    corrupt_pairs=0.0,
    num_epochs=None,
    seed=0,
  )
  task = task_lib.TaskReference(model['task'], {'workdir': out})
  fitted = fit_basis.run(
    console,
    task=task,
    out=basis,
    config=fit_basis_config.FitBasisConfig(sample_size=1500),
    resources=fit_basis_config.Resources(),
  )
  project.run(
    console,
    task=task,
    basis=basis,
    index=index,
    engine='local',
    num_workers=2,
    projection_options=gradient_projection.ProjectionOptions(),
    vector_dtype='float32',
    range_size=128,
    max_rejected_fraction=0.0,
    stall_minutes=30.0,
    multi_process=False,
    beam_arguments=[],
  )
  suspicious = self_influence.run(
    console.quiet(), index=index, k=_NUM_SUSPICIOUS, out=None, options=_OPTIONS
  )
  found = topk.run(
    console.quiet(),
    task=task,
    index=index,
    query_split=_QUERY_SPLIT,
    k=_QUERY_K,
    basis=None,
    projection_options=gradient_projection.ProjectionOptions(),
    out=None,
    options=_OPTIONS,
    selection=row_blocks.EVERYTHING,
  )
  evaluated = evaluate_detection.run(
    console.quiet(),
    index=index,
    bad='label <> true_label',
    where=None,
    num_first=_NUM_SUSPICIOUS,
    num_bootstrap=0,
    seed=0,
    out=None,
    options=_OPTIONS,
  )
  opened = index_reader.Index(index)
  summary: dict[str, Any] = {
    'num_examples': opened.num_examples,
    'projection_dim': opened.manifest.provenance.projection_dim,
    'eigenvalues': list(fitted['eigenvalues']),
    'basis_residuals': list(fitted['report']['residuals']),
    'mislabeled': {row['score']: row for row in evaluated['scores']},
    'queries': _group_by_query(found['results']),
    'index': index,
    'manifest': manifest_lib.path_of(index, opened.manifest.generation),
    'report': storage.join(out, 'report.html'),
  }
  with console.stage('report', 'pages'):
    page = demo_report.render(task, summary, suspicious['results'])
    with storage.open_for_writing(summary['report']) as file:
      file.write(page.encode())
  summary['seconds'] = dict(console.seconds)
  with storage.open_for_writing(storage.join(out, 'summary.json')) as file:
    file.write(json.dumps(summary, indent=1).encode())
  _print_findings(console, out, summary)
  return summary


def _group_by_query(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  queries: dict[str, dict[str, Any]] = {}
  for row in rows:
    query = queries.setdefault(
      row['query_id'],
      {'id': row['query_id'], 'proponents': [], 'opponents': []},
    )
    query[f'{row["kind"]}s'].append(
      {key: row[key] for key in ('id', 'score', 'label', 'true_label')}
    )
  return list(queries.values())


def _print_findings(
  console: console_lib.Console, out: str, summary: dict[str, Any]
) -> None:
  console.print()
  result_tables.print_rows(
    console,
    f'finding the wrong training labels ({_FLIPPED_FRACTION:.0%} of '
    f'{summary["num_examples"]}) by',
    pa.Table.from_pylist(list(summary['mislabeled'].values())),
  )
  console.print()
  for query in summary['queries']:
    result_tables.print_rows(
      console,
      f'query {query["id"]}: proponents lower its loss, opponents raise it',
      pa.Table.from_pylist(
        [
          {'kind': kind, **row}
          for kind in ('proponents', 'opponents')
          for row in query[kind]
        ]
      ),
    )
    console.print()
  console.print(f'report    {summary["report"]}')
  console.print(f'summary   {storage.join(out, "summary.json")}')
  console.print(f'index     {summary["index"]}')
  console.print(f'manifest  {summary["manifest"]}')
