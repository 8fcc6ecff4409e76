"""What a search does that its answer does not show: said in a line each."""

import numpy as np
import pyarrow as pa

from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib
from pipeline.index import reader as index_reader


def tell_before(
  console: console_lib.Console,
  index: index_reader.Index,
  *,
  k: int,
  options: ScoreOptions,
) -> None:
  """Warns of what is asked for and cannot be meant.

  Args:
    console: to warn on.
    index: that is searched.
    k: examples wanted.
    options: how to score.
  """
  if k > index.num_examples:
    console.warn(
      f'--k is {k:,}, but the index has {index.num_examples:,} examples; all '
      'of them are ranked'
    )
  num_negative = int(np.sum(index.eigenvalues < 0))
  if options.negative_eigenvalues == 'clip' and num_negative:
    console.warn(
      f'--negative_eigenvalues clip raises {num_negative} negative eigenvalues '
      'to the smallest positive one, which gives their pairs the largest '
      'weight of all; drop (the default) leaves them out'
    )


def tell_after(
  console: console_lib.Console, table: pa.Table, where: str | None
) -> None:
  """Warns where a condition left nothing to find.

  Args:
    console: to warn on.
    table: what was found.
    where: the condition; None for none.
  """
  if where is not None and not table.num_rows:
    console.warn(f'no example matches --where {where!r}')


def tell_next(console: console_lib.Console, index: index_reader.Index) -> None:
  """Says what else an index answers."""
  console.print(
    "next: --where 'CONDITION' searches some examples alone, --out "
    'FILE.parquet keeps all results'
  )
  if not index.manifest.provenance.query_ids:
    console.print(
      f'      influence self-influence --index {index.path} ranks training '
      'examples that the model had to memorise, such as wrong labels'
    )
