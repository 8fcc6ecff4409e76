"""What was found for queries, as notebooks take it."""

from collections.abc import Iterator
import html
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
  import matplotlib.axes
  import pandas

_MAX_ROWS = 40
_MAX_TEXT = 120


class Answer:
  """Proponents and opponents of queries. A notebook shows it as a table.

  Attributes:
    queries: what was asked: `id`, the columns of the task, predictions, loss.
    results: a row for each query, kind and rank; see `tables.influence_table`.
  """

  def __init__(self, queries: pa.Table, results: pa.Table):
    self.queries = queries
    self.results = results

  def of(self, query_id: str, kind: str = 'proponent') -> pa.Table:
    """Rows of a query, the strongest first.

    Args:
      query_id: as in `queries`.
      kind: 'proponent' or 'opponent'.
    """
    chosen = (pc.field('query_id') == query_id) & (pc.field('kind') == kind)
    return self.results.filter(chosen)

  def to_pandas(self) -> 'pandas.DataFrame':
    """The results as a data frame; needs pandas."""
    return self.results.to_pandas()

  def plot(
    self,
    query_id: str | None = None,
    axes: 'matplotlib.axes.Axes | None' = None,
  ) -> 'matplotlib.axes.Axes':
    """Scores of what was found for a query, as bars.

    Args:
      query_id: None for the first.
      axes: of matplotlib, to draw into; None for new ones.
    """
    if axes is None:
      import matplotlib.figure

      figure = matplotlib.figure.Figure(layout='constrained')
      axes = figure.subplots()
    query_id = query_id or self.queries['id'][0].as_py()
    rows = [
      *self.of(query_id).to_pylist(),
      *reversed(self.of(query_id, 'opponent').to_pylist()),
    ]
    scores = [row['score'] for row in rows]
    colors = ['tab:blue' if score > 0 else 'tab:orange' for score in scores]
    axes.barh(range(len(rows)), scores, color=colors)
    axes.set_yticks(range(len(rows)), [row['id'] for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel('influence')
    axes.set_title(query_id)
    return axes

  def __repr__(self) -> str:
    return (
      f'<Answer for {self.queries.num_rows} queries, '
      f'{self.results.num_rows} rows>'
    )

  def _repr_html_(self) -> str:
    more = self.results.num_rows - _MAX_ROWS
    note = f'<p>… and {more:,} more rows in .results</p>' if more > 0 else ''
    return f'{html_table(self.results.slice(0, _MAX_ROWS))}{note}'


def html_table(table: pa.Table) -> str:
  """A table as HTML, numbers with four digits, texts cut."""
  head = ''.join(f'<th>{html.escape(x)}</th>' for x in table.column_names)
  body = ''.join(
    f'<tr>{"".join(_cells(row.values()))}</tr>' for row in table.to_pylist()
  )
  return f'<table><tr>{head}</tr>{body}</table>'


def _cells(values: Any) -> Iterator[str]:
  for value in values:
    text = f'{value:.4g}' if isinstance(value, float) else str(value)
    if len(text) > _MAX_TEXT:
      text = f'{text[:_MAX_TEXT]} …'
    yield f'<td>{html.escape(text)}</td>'
