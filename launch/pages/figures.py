"""Figures in pages: SVG in the colours of the page, light or dark."""

from collections.abc import Sequence
import io
from typing import Any

import cycler
import markupsafe
import matplotlib.figure
import matplotlib.style
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from influence_core.subspaces import columns as columns_lib

# Stands for the colour of text, which the page knows.
_INK = '#010203'
_SETTINGS: dict[str, Any] = {
  **dict.fromkeys(
    (
      *('text.color', 'axes.edgecolor', 'axes.labelcolor'),
      *('xtick.color', 'ytick.color'),
    ),
    _INK,
  ),
  **dict.fromkeys(('figure.facecolor', 'axes.facecolor'), 'none'),
  'legend.framealpha': 0,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'svg.fonttype': 'none',
  'font.family': 'sans-serif',
  # To be told apart on white and on black.
  'axes.prop_cycle': cycler.cycler(
    color=['#3b82f6', '#ea7317', '#12a150', '#a855f7', '#e5484d', '#7c8896']
  ),
}
_NO_METADATA = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
# With more of them, lines are not named.
_MAX_NAMED = 6


def spectrum(
  eigenvalues: Sequence[float], residuals: Sequence[float]
) -> markupsafe.Markup:
  """Eigenvalues by rank, and how well each is known.

  Args:
    eigenvalues: of the pairs, the largest first.
    residuals: of the same; empty where they are not known.
  """
  values = np.asarray(eigenvalues)
  ranks = np.arange(1, len(values) + 1)
  with matplotlib.style.context(_SETTINGS):
    figure = matplotlib.figure.Figure(figsize=(7, 3.2), layout='constrained')
    axes = figure.subplots(1, 2 if len(residuals) else 1, squeeze=False)[0]
    for name, own in (('positive', values > 0), ('negative', values < 0)):
      if own.any():
        axes[0].semilogy(ranks[own], np.abs(values[own]), '.', label=name)
    axes[0].set_ylabel('|eigenvalue|')
    if (values < 0).any():
      axes[0].legend()
    if len(residuals):
      tiny = np.finfo(np.float32).tiny
      axes[1].semilogy(ranks, np.maximum(residuals, tiny), '.')
      axes[1].set_ylabel('residual')
    for one in axes:
      one.set_xlabel('eigenpair')
      one.grid(alpha=0.3)
    return _svg(figure)


def layer_spectra(
  eigenvalues: Sequence[float], layers: Sequence[columns_lib.LayerColumns]
) -> markupsafe.Markup:
  """The curvature along the coordinates of each layer.

  Args:
    eigenvalues: of all columns, falling within each layer.
    layers: in the order of the columns.
  """
  with matplotlib.style.context(_SETTINGS):
    figure = matplotlib.figure.Figure(figsize=(7, 3.4), layout='constrained')
    axes = figure.subplots()
    are_named = len(layers) <= _MAX_NAMED
    for layer, own in zip(layers, columns_lib.slices(layers), strict=True):
      axes.semilogy(
        range(1, layer.count + 1),
        eigenvalues[own],
        linewidth=1.5 if are_named else 0.7,
        label=layer.name.replace('$', '\\$'),
      )
    axes.set_xlabel('coordinate of the layer')
    axes.set_ylabel('curvature')
    axes.grid(alpha=0.3)
    if are_named:
      axes.legend()
    return _svg(figure)


def precision(curves: pa.Table) -> markupsafe.Markup:
  """Precision over recall of each score.

  Args:
    curves: from `detection.curves`.
  """
  with matplotlib.style.context(_SETTINGS):
    figure = matplotlib.figure.Figure(figsize=(6, 3.6), layout='constrained')
    axes = figure.subplots()
    for name in curves['score'].unique().to_pylist():
      points = curves.filter(pc.field('score') == name)
      axes.plot(
        points['recall'].to_numpy(),
        points['precision'].to_numpy(),
        label=name.replace('_', ' '),
      )
    axes.set_xlabel('share of the bad ones that was found')
    axes.set_ylabel('share that is bad of those looked at')
    axes.set_ylim(0, 1.02)
    axes.grid(alpha=0.3)
    axes.legend()
    return _svg(figure)


def _svg(figure: matplotlib.figure.Figure) -> markupsafe.Markup:
  buffer = io.StringIO()
  figure.savefig(buffer, format='svg', metadata=_NO_METADATA)
  text = buffer.getvalue()
  text = text[text.index('<svg') :].replace(_INK, 'currentColor')
  return markupsafe.Markup(text)
