"""`influence runs`: what was estimated, and what it took."""

import dataclasses
from typing import Any

from launch.output import console as console_lib
from pipeline.upkeep import run_records


def run(console: console_lib.Console, *, index: str) -> dict[str, Any]:
  """Lists estimates and runs of an index, the oldest first."""
  records = run_records.load_all(index)
  rows, estimated = [], None
  for record in records:
    rate = record.examples_per_second / max(record.num_workers, 1)
    share = ''
    if record.kind == 'estimate':
      estimated = rate
    elif estimated:
      share = f'{rate / estimated:.2f}'
    rows.append(
      [
        *(record.started, record.kind, f'{record.num_examples:,}'),
        *(f'{record.num_workers:,}', f'{record.seconds:,.1f}'),
        *(f'{rate:,.1f}', share),
      ]
    )
  console.table(
    f'runs of {index}',
    [
      *('started', 'kind', 'examples', 'workers', 'seconds'),
      *('examples/s of each', 'of the estimate'),
    ],
    rows,
  )
  return {
    'index': index,
    'runs': [dataclasses.asdict(record) for record in records],
  }
