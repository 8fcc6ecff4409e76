"""`influence evaluate detection`: are bad examples ranked first?"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.output import (
  basis_notes,
  console as console_lib,
  evaluation_report,
  plots,
  search_notes,
)
from pipeline.evaluation import detection
from pipeline.search.open_index import open_ensemble
from pipeline.storage import output_places


def run(
  console: console_lib.Console,
  *,
  indexes: list[str],
  scales: list[float] | None,
  bad: str,
  where: str | None,
  num_first: int,
  num_bootstrap: int,
  seed: int,
  out: str | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Measures each score of the indexes as a detector.

  Raises:
    errors.InputError: A number is out of range, or see `detection`.
  """
  if num_first < 1 or num_bootstrap < 0:
    raise errors.InputError(
      f'num_first is {num_first} and num_bootstrap {num_bootstrap}, expected '
      'at least 1 and 0'
    )
  if out is not None:
    out = output_places.check_results(out)
  opened = open_ensemble(indexes, scales=scales)
  basis_notes.tell_of_index(console, opened)
  with console.stage('evaluate'):
    rankings = detection.read_rankings(
      opened, bad=bad, where=where, options=options, seed=seed
    )
    table = detection.measure(
      rankings, num_first=num_first, num_bootstrap=num_bootstrap, seed=seed
    )
  num_bad, num_all = int(rankings.is_bad.sum()), len(rankings.is_bad)
  curves = detection.curves(rankings)
  result = {
    **search_notes.searched(opened),
    'bad': bad,
    'where': where,
    'num_bad': num_bad,
    'num_examples': num_all,
    'num_bootstrap': num_bootstrap,
    'seed': seed,
    'scores': table.to_pylist(),
  }
  report = evaluation_report.Report(
    'detection',
    f'{num_bad:,} of {num_all:,} examples are bad; found by',
    table,
    result,
    tables={'detection': table, 'curves': curves},
    plots={'detection': lambda: _plot(curves, result)},
  )
  return report.show(console, out)


def _plot(curves: pa.Table, result: dict[str, Any]) -> bytes:
  """Precision over recall of every score."""
  lines = []
  for row in result['scores']:
    points = curves.filter(pc.field('score') == row['score'])
    lines.append(
      plots.Curve(
        f'{row["score"]} ({row["average_precision"]:.3f})',
        points['recall'].to_numpy(),
        points['precision'].to_numpy(),
      )
    )
  return plots.curves(
    lines,
    title=(
      f'{result["num_bad"]:,} bad of {result["num_examples"]:,}, seed '
      f'{result["seed"]}'
    ),
    labels=('recall', 'precision'),
    legend='score (average precision)',
  )
