"""What a search does that its answer does not show: said in a line each."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from influence_core.scores.options import ScoreOptions
from launch.output import console as console_lib
from pipeline.index import ensemble


def tell_before(
  console: console_lib.Console,
  index: ensemble.Ensemble,
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
  if index.num_left_out:
    console.warn(
      f'{index.num_left_out:,} examples that not all of the indexes have are '
      'left out'
    )
  known = {
    member.index.manifest.provenance.fingerprints.get('preprocessing')
    for member in index.members
  }
  if len(known) > 1:
    console.warn(
      'the indexes were made with different preprocessing, such as other '
      'labels; their scores are added all the same'
    )
  num_negative = sum(
    int(np.sum(member.index.eigenvalues < 0)) for member in index.members
  )
  if options.negative_eigenvalues == 'clip' and num_negative:
    console.warn(
      f'--negative_eigenvalues clip raises {num_negative} negative eigenvalues '
      'to the smallest positive one, which gives their pairs the largest '
      'weight of all; drop (the default) leaves them out'
    )


def tell_copies(
  console: console_lib.Console, copies: Mapping[str, str]
) -> None:
  """Says which queries are not asked, as they are the same as others.

  Args:
    console: to tell on.
    copies: the query that each is a copy of, by id.
  """
  if copies:
    copy, first = next(iter(copies.items()))
    console.tell(
      f'{len(copies)} queries are copies of others and not asked again, such '
      f'as {copy} of {first}'
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


def suggest_next(
  console: console_lib.Console, index: ensemble.Ensemble
) -> None:
  """Says what else an index answers."""
  commands = [
    "--where 'CONDITION' searches some examples alone, --out FILE.parquet or "
    '.html keeps all results'
  ]
  if ranks_examples(index):
    commands.append(
      f'influence self-influence --index {index.path} ranks training examples '
      'that the model had to memorise, such as wrong labels'
    )
  console.suggest(*commands)


def ranks_examples(index: ensemble.Ensemble) -> bool:
  """Whether self-influence means something: not of single queries' vectors."""
  return not any(
    member.index.manifest.provenance.query_ids for member in index.members
  )


def searched(index: ensemble.Ensemble) -> dict[str, Any]:
  """What was searched, for results: the path of all, and each."""
  return {
    'index': index.path,
    'generation': index.members[0].index.generation,
    'members': [
      {
        'index': member.index.path,
        'generation': member.index.generation,
        'scale': member.scale,
      }
      for member in index.members
    ],
  }
