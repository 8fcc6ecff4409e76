"""A self-contained HTML page of what was found for queries, tokens shaded."""

from collections.abc import Mapping, Sequence
import itertools
from typing import Any, NamedTuple

import pyarrow as pa

from launch.output import templates
from pipeline.index import members as members_lib
from pipeline.storage import files as storage

# Columns that are shown in places of their own.
_SHOWN = frozenset(
  (
    *('query_id', 'kind', 'rank', 'score', 'text'),
    *('by_layer', 'tokens', 'query_tokens'),
  )
)
# Of the largest share in a text, what is not worth a colour.
_FAINTEST = 0.03

Row = Mapping[str, Any]


class Token(NamedTuple):
  """A token on the page.

  Attributes:
    text: of it.
    score: its share.
    shade: from -1 to 1, relative to the largest of its text.
  """

  text: str
  score: float
  shade: float


def write(
  path: str,
  index: members_lib.Searched,
  queries: pa.Table,
  results: pa.Table,
) -> None:
  """Writes the page as one file, replacing an older one.

  Args:
    path: of the file.
    index: that was searched.
    queries: what they are, with `id`.
    results: from `result_tables.influence_table`.
  """
  described = {row['id']: row for row in queries.to_pylist()}
  by_query = itertools.groupby(results.to_pylist(), lambda row: row['query_id'])
  page = templates.render(
    'search_page',
    index=index,
    shaded=shaded,
    known=known,
    queries=[
      (described.get(query_id, {'id': query_id}), _ends(list(rows)))
      for query_id, rows in by_query
    ],
  )
  with storage.open_for_writing(path) as file:
    file.write(page.encode())


def shaded(tokens: Sequence[Row]) -> list[Token]:
  """Tokens with their shades."""
  largest = max((abs(token['score']) for token in tokens), default=0) or 1
  found = []
  for token in tokens:
    shade = token['score'] / largest
    is_seen = abs(shade) >= _FAINTEST
    found.append(Token(token['text'], token['score'], shade * is_seen))
  return found


def known(row: Row) -> dict[str, str]:
  """What is said of an example or a query besides its tokens."""
  return {
    name: f'{value:.4g}' if isinstance(value, float) else str(value)
    for name, value in row.items()
    if name not in _SHOWN
  }


def _ends(rows: Sequence[Row]) -> dict[str, list[Row]]:
  """Rows of a query by kind."""
  return {
    f'{kind}s': [row for row in rows if row['kind'] == kind]
    for kind in ('proponent', 'opponent')
  }
