"""Figures with intervals and curves, as SVG."""

from collections.abc import Mapping, Sequence
import io
import os
from typing import Any, NamedTuple

import matplotlib.figure
import numpy as np


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
    axes.errorbar(
      [x.label for x in points],
      [x.mean for x in points],
      yerr=np.transpose([(x.mean - x.low, x.high - x.mean) for x in points]),
      marker='o',
      linestyle='-' if joined else '',
      capsize=3,
      label=name,
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
    axes.plot(line.x, line.y, label=line.label)
  axes.set_xlabel(labels[0])
  axes.set_ylabel(labels[1])
  axes.legend(title=legend)
  return _svg(figure)


def short_names(paths: Sequence[str]) -> list[str]:
  """Paths without the beginning and the end that they have in common."""
  if len(set(paths)) < 2:
    return [os.path.basename(path) for path in paths]
  common = os.path.commonpath(paths)
  names = [os.path.relpath(path, common) for path in paths]
  while len({os.path.basename(name) for name in names}) == 1:
    names = [os.path.dirname(name) for name in names]
  return names


def _axes(title: str) -> tuple[matplotlib.figure.Figure, Any]:
  figure = matplotlib.figure.Figure(figsize=(6, 4.5), layout='constrained')
  axes = figure.subplots()
  axes.set_title(title)
  axes.grid(alpha=0.3)
  return figure, axes


def _svg(figure: matplotlib.figure.Figure) -> bytes:
  buffer = io.BytesIO()
  figure.savefig(buffer, format='svg')
  return buffer.getvalue()
