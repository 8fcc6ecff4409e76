"""The page of a report: one self-contained HTML file."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from launch.pages import templates
from launch.pages.report import Report
from pipeline.search.corpus_summary import ClassInfluence
from pipeline.storage import files as storage

PAGE_SIZE = 48
_MAX_REJECTED = 100


class _Cell(NamedTuple):
  """A number on the heat map.

  Attributes:
    text: of it.
    shade: from -1 to 1, relative to the largest of all.
  """

  text: str
  shade: float


def write(path: str, report: Report) -> None:
  """Writes the page as one file, replacing an older one.

  Args:
    path: of the file, local or remote.
    report: what it says.
  """
  with storage.open_for_writing(path) as file:
    file.write(render(report).encode())


def render(report: Report) -> str:
  """The page as text."""
  rejected = report.rejected
  return templates.render(
    'report',
    report=report,
    sections=list(_sections(report)),
    page_size=PAGE_SIZE,
    has_tokens=any(
      card.tokens
      for query in report.queries
      for card in (*query.proponents, *query.opponents)
    ),
    heat=_heat(report.classes) if report.classes else [],
    rejected=(rejected.slice(0, _MAX_REJECTED).to_pylist() if rejected else []),
  )


def _sections(report: Report) -> Iterator[tuple[str, str]]:
  """Id and title of each section that is there, in their order."""
  for is_there, name, title in (
    (report.gallery, 'suspicious', 'Suspicious examples'),
    (report.detection, 'bad', 'Bad ones found'),
    (report.queries, 'queries', 'Queries'),
    (report.classes, 'classes', 'Classes'),
    (report.pairs, 'copies', 'Near-duplicates'),
    (report.spectrum or report.layers, 'basis', 'Basis'),
    (report.rejected and report.rejected.num_rows, 'rejected', 'Left out'),
    (report.drift, 'drift', 'Changes'),
    (True, 'index', 'Index'),
  ):
    if is_there:
      yield name, title


def _heat(classes: ClassInfluence) -> list[list[_Cell]]:
  known = np.abs(classes.means[np.isfinite(classes.means)])
  largest = known.max(initial=0) or 1
  return [
    [
      _Cell(f'{x:.2g}', x / largest) if np.isfinite(x) else _Cell('', 0.0)
      for x in row
    ]
    for row in classes.means.tolist()
  ]
