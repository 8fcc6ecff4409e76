"""A self-contained HTML page about a basis and what was retrieved with it."""

from collections.abc import Sequence
import dataclasses
import io
from typing import Any

import jinja2
import markupsafe
import matplotlib.figure


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
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader('launch', 'output'),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
  )
  return environment.get_template('html_page.html.j2').render(
    title=title,
    summary=summary,
    spectrum=markupsafe.Markup(
      spectrum_svg(summary['eigenvalues'], summary['basis_residuals'])
    ),
    suspicious=suspicious,
    queries=queries,
  )


def spectrum_svg(
  eigenvalues: Sequence[float], residuals: Sequence[float]
) -> str:
  """Eigenvalues above, relative residuals below, as inline SVG."""
  figure = matplotlib.figure.Figure(figsize=(8, 4.2), layout='constrained')
  upper, lower = figure.subplots(2, 1, sharex=True)
  pairs = range(1, len(eigenvalues) + 1)
  upper.semilogy(pairs, [abs(x) for x in eigenvalues], '.-', color='#2457a6')
  upper.set_ylabel('|eigenvalue|')
  # A residual of exactly zero has no place on a logarithmic axis.
  lower.semilogy(pairs, [max(x, 1e-9) for x in residuals], '.', color='#b3541e')
  lower.axhline(0.1, color='#999999', linewidth=1)
  lower.set_ylabel('residual / |eigenvalue|')
  lower.set_xlabel('eigenpair')
  for axes in (upper, lower):
    axes.grid(alpha=0.3)
  buffer = io.StringIO()
  figure.savefig(buffer, format='svg')
  text = buffer.getvalue()
  return text[text.index('<svg') :]
