"""`influence diff`: what changed between two generations of an index."""

from typing import Any

import numpy as np

from influence_core import errors
from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib
from pipeline.index import manifest as manifest_lib, reader as index_reader
from pipeline.upkeep import generation_diff


def run(
  console: console_lib.Console,
  *,
  index: str,
  old: int | None,
  new: int | None,
  options: ScoreOptions,
) -> dict[str, Any]:
  """Shows what changed between two generations."""
  later = index_reader.Index(index, new)
  if old is None:
    earlier_ones = [
      number
      for number in manifest_lib.generations(later.path)
      if number < later.generation
    ]
    if not earlier_ones:
      raise errors.InputError(
        f'generation {later.generation} of {later.path} has none before it; '
        'give two with --old and --new'
      )
    old = earlier_ones[-1]
  earlier = index_reader.Index(index, old)
  for one in (earlier, later):
    one.check_examples('diff')
  with console.stage('diff', 'files') as progress:
    found = generation_diff.difference(
      earlier, later, options=options, progress=progress
    )
  result = {
    'index': later.path,
    'old': earlier.generation,
    'new': later.generation,
    'num_unchanged': found.num_unchanged,
    'num_recomputed': found.num_recomputed,
    'num_added': found.num_added,
    'num_gone': found.num_gone,
    'changed_fingerprints': list(found.changed_fingerprints),
    'self_influence_moves': _quantiles(found.relative_moves),
    'largest_moves': [
      {'id': example_id, 'old': before, 'new': after}
      for example_id, before, after in found.largest_moves
    ],
  }
  _print_difference(console, result)
  return result


def _quantiles(moves: np.ndarray) -> dict[str, float] | None:
  if not len(moves):
    return None
  names = {'median': 0.5, 'p95': 0.95, 'max': 1.0}
  return {
    name: float(np.quantile(moves, value)) for name, value in names.items()
  }


def _print_difference(
  console: console_lib.Console, result: dict[str, Any]
) -> None:
  console.print(
    f'from generation {result["old"]} to {result["new"]}: '
    f'{result["num_added"]:,} examples added, {result["num_gone"]:,} gone, '
    f'{result["num_recomputed"]:,} recomputed, {result["num_unchanged"]:,} '
    'unchanged'
  )
  if result['changed_fingerprints']:
    console.print(f'changed: {", ".join(result["changed_fingerprints"])}')
  if moves := result['self_influence_moves']:
    console.print(
      f'self-influence of recomputed examples moved by {moves["median"]:.2g} '
      f'(median), {moves["p95"]:.2g} (95 %), {moves["max"]:.2g} (most), '
      'relative to what it was'
    )
    console.table(
      'examples that moved most',
      ['id', 'old', 'new'],
      [
        [row['id'], f'{row["old"]:.4g}', f'{row["new"]:.4g}']
        for row in result['largest_moves']
      ],
    )
