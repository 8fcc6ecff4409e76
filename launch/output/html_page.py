"""A self-contained HTML page about a basis and what was retrieved with it."""

from collections.abc import Sequence
import dataclasses
import io
from typing import Any

import markupsafe
import matplotlib.figure

from influence_core.subspaces import columns
from launch.output import templates


@dataclasses.dataclass(frozen=True)
class Card:
  """An example on the page: image, id as tooltip, lines of text below."""

  image: str
  id: str
  lines: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Query:
  """A query with its proponents and opponents, strongest first."""

  card: Card
  proponents: Sequence[Card]
  opponents: Sequence[Card]


def render(
  *,
  title: str,
  summary: dict[str, Any],
  suspicious: Sequence[Card],
  queries: Sequence[Query],
) -> str:
  """The page as text.

  Args:
    title: heading.
    summary: figures; the keys of the demo's `summary.json`.
    suspicious: examples of the highest self-influence.
    queries: with what was retrieved for them.
  """
  return templates.render(
    'html_page',
    title=title,
    summary=summary,
    spectrum=markupsafe.Markup(
      spectrum_svg(
        summary['eigenvalues'],
        [columns.LayerColumns(**layer) for layer in summary['layers']],
      )
    ),
    suspicious=suspicious,
    queries=queries,
  )


def spectrum_svg(
  eigenvalues: Sequence[float], layers: Sequence[columns.LayerColumns]
) -> str:
  """The eigenvalues of each layer as inline SVG.

  Args:
    eigenvalues: of all columns, falling within each layer.
    layers: in the order of the columns.
  """
  figure = matplotlib.figure.Figure(figsize=(8, 4.2), layout='constrained')
  axes = figure.subplots()
  for layer, own in zip(layers, columns.slices(layers), strict=True):
    axes.semilogy(
      range(1, layer.count + 1),
      eigenvalues[own],
      label=f'{layer.name} ({layer.captured:.0%} of its trace)',
    )
  axes.set_xlabel('coordinate of the layer')
  axes.set_ylabel('curvature')
  axes.grid(alpha=0.3)
  axes.legend()
  buffer = io.StringIO()
  figure.savefig(buffer, format='svg')
  text = buffer.getvalue()
  return text[text.index('<svg') :]
