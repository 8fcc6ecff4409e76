"""`influence demo`: every stage on real digits, in less than a minute."""

from typing import Any

import pyarrow as pa

from launch.output import console as console_lib, json_text, result_tables
from launch.running import command_line
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.storage import files as storage, output_places
from pipeline.tasks.reference import TaskReference

_FLIPPED_FRACTION = 0.1
_NUM_SUSPICIOUS = '100'
_QUERY_SPLIT = 'test[:3]'
_BAD = 'label <> true_label'


def run(console: console_lib.Console, *, out: str) -> dict[str, Any]:
  """Trains, fits, projects, retrieves, evaluates and writes a report."""
  out = output_places.check_results(out)
  basis, index = storage.join(out, 'basis'), storage.join(out, 'index')
  found_in = ('--index', index)
  model = command_line.run(
    console,
    *('train-example', 'digits_cnn', '--workdir', out),
    *('--flip_labels', str(_FLIPPED_FRACTION)),
  )
  task = TaskReference(model['task'], {'workdir': out})
  task_flags = command_line.task_flags(task)
  fitted = command_line.run(
    console,
    *('fit-basis', *task_flags, '--out', basis, '--sample_size', '1500'),
  )
  command_line.run(
    console,
    *('project', *task_flags, '--basis', basis, *found_in),
    *('--range_size', '128'),
  )
  found = command_line.run(
    console.quiet(),
    *('topk', *task_flags, *found_in, '--k', '4'),
    *('--query_split', _QUERY_SPLIT),
  )
  evaluated = command_line.run(
    console.quiet(),
    *('evaluate', 'detection', *found_in, '--bad', _BAD),
    *('--num_first', _NUM_SUSPICIOUS, '--num_bootstrap', '0'),
  )
  manifest = index_reader.Index(index).manifest
  summary: dict[str, Any] = {
    'num_examples': manifest.num_examples,
    'projection_dim': manifest.provenance.projection_dim,
    'eigenvalues': list(fitted['eigenvalues']),
    'layers': list(fitted['report']['layers']),
    'mislabeled': {row['score']: row for row in evaluated['scores']},
    'queries': _group_by_query(found['results']),
    'index': index,
    'manifest': manifest_lib.path_of(index, manifest.generation),
    'report': storage.join(out, 'report.html'),
    'seconds': dict(console.seconds),
  }
  _write(storage.join(out, 'summary.json'), json_text.encode(summary, indent=1))
  command_line.run(
    console.quiet(),
    *('report', *task_flags, *found_in, '--query_split', _QUERY_SPLIT),
    *('--bad', _BAD, '--out', summary['report']),
  )
  _print_findings(console, out, summary)
  return summary


def _write(path: str, text: str) -> None:
  with storage.open_for_writing(path) as file:
    file.write(text.encode())


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
  console.suggest(
    f'open {summary["report"]} in a browser',
    f'influence explore --index {summary["index"]}',
  )
