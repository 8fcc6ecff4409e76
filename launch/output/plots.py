"""Figures with intervals and curves, as SVG."""

from collections.abc import Mapping, Sequence
import io
import os
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np

from pipeline.storage import files as storage


class Interval(NamedTuple):
  """A figure and its 95 % interval.

  Attributes:
    label: what it is of.
    mean: the figure.
    low: end of the interval.
    high: other end.
  """

  label: str
  mean: float
  low: float
  high: float


class Curve(NamedTuple):
  """Points that are joined.

  Attributes:
    label: what it is of.
    x: [num_points].
    y: [num_points].
  """

  label: str
  x: np.ndarray
  y: np.ndarray


def intervals(
  series: Mapping[str, Sequence[Interval]], *, title: str, joined: bool
) -> bytes:
  """Figures side by side, those of a series in one colour.

  Args:
    series: by name.
    title: above.
    joined: whether the labels have an order, so that a line is drawn.
  """
  figure, axes = _axes(title)
  for name, points in series.items():
    labels = [_plain(x.label) for x in points]
    (line,) = axes.plot(
      labels,
      [x.mean for x in points],
      marker='o',
      linestyle='-' if joined else '',
      label=_plain(name),
    )
    # By its middle: rounding, or a bias, may leave the figure outside.
    axes.errorbar(
      labels,
      [(x.low + x.high) / 2 for x in points],
      yerr=[(x.high - x.low) / 2 for x in points],
      fmt='none',
      ecolor=line.get_color(),
      capsize=3,
    )
  figure.autofmt_xdate(rotation=30, ha='right')
  axes.legend()
  return _svg(figure)


def curves(
  lines: Sequence[Curve],
  *,
  title: str,
  labels: tuple[str, str],
  legend: str,
) -> bytes:
  """Lines in the same axes, with the names of these."""
  figure, axes = _axes(title)
  for line in lines:
    axes.plot(line.x, line.y, label=_plain(line.label))
  axes.set_xlabel(_plain(labels[0]))
  axes.set_ylabel(_plain(labels[1]))
  axes.legend(title=_plain(legend))
  return _svg(figure)


def short_names(paths: Sequence[str]) -> list[str]:
  """What differs between paths or URLs, in any mixture; each name once.

  Directories that all have in common are left out at the beginning and at the
  end. A path that is given again has its number behind it.
  """
  if any(path.startswith('/') for path in paths):
    paths = [storage.absolute(path) for path in paths]
  parts = [_parts(path) for path in paths]
  shortest = min(map(len, parts), default=0)
  start = 0
  while start < shortest - 1 and len({x[start] for x in parts}) == 1:
    start += 1
  end = 0
  if len(set(parts)) > 1:
    while end < shortest - start - 1 and len({x[-1 - end] for x in parts}) == 1:
      end += 1
  names: list[str] = []
  for own in parts:
    name = '/'.join(own[start : len(own) - end])
    count = 1
    while (numbered := f'{name} ({count})' if count > 1 else name) in names:
      count += 1
    names.append(numbered)
  return names


def _parts(path: str) -> tuple[str, ...]:
  """Directories of a path; where it is from stands in the first."""
  scheme, separator, rest = path.rpartition('://')
  if not separator:
    rest = os.path.normpath(path)
  root = scheme + separator or ('/' if rest.startswith('/') else '')
  first, *others = [x for x in rest.split('/') if x] or ['']
  return (root + first, *others)


def _axes(title: str) -> tuple[matplotlib.figure.Figure, Any]:
  figure = matplotlib.figure.Figure(figsize=(6, 4.5), layout='constrained')
  axes = figure.subplots()
  axes.set_title(_plain(title))
  axes.grid(alpha=0.3)
  return figure, axes


def _plain(text: str) -> str:
  """Text of a user, in which a dollar sign begins no formula."""
  return text.replace('$', '\\$')


def _svg(figure: matplotlib.figure.Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='svg')
  return buffer.getvalue()
