"""Inner products of rows and queries, each summed in float64 by itself.

The columns may have parts, over which a row has scales of its own: those of
several models, or of layers.
"""

from collections.abc import Sequence

import numpy as np

ALL_COLUMNS = (slice(None),)
# Pairs of a row and a query that are copied together.
_PAIRS_TOGETHER = 1 << 12


def exact_parts(
  rows: np.ndarray,
  places: np.ndarray,
  queries: np.ndarray,
  numbers: np.ndarray,
  parts: Sequence[slice],
) -> np.ndarray:
  """[n, num_parts] float64 inner products of pairs, over some columns each.

  Args:
    rows: [num_rows, dim] float32.
    places: [n] which row of each pair.
    queries: [num_queries, dim] float32.
    numbers: [n] which query of each pair.
    parts: of the columns.
  """
  exact = np.empty((len(places), len(parts)))
  for start in range(0, len(places), _PAIRS_TOGETHER):
    some = slice(start, start + _PAIRS_TOGETHER)
    left, right = rows[places[some]], queries[numbers[some]]
    for number, part in enumerate(parts):
      exact[some, number] = np.einsum(
        'ij,ij->i', left[:, part], right[:, part], dtype=np.float64
      )
  return exact


def exact_scores(
  rows: np.ndarray,
  places: np.ndarray,
  queries: np.ndarray,
  numbers: np.ndarray,
  scales: np.ndarray | None,
  parts: Sequence[slice] = ALL_COLUMNS,
) -> np.ndarray:
  """[n] float32 scores of pairs, each summed in float64 by itself.

  Args: those of `exact_parts`, and
    scales: [num_rows, num_parts] float32, what products over each part are
      multiplied by; None for 1.
  """
  if scales is None:
    exact = exact_parts(rows, places, queries, numbers, ALL_COLUMNS)
  else:
    exact = exact_parts(rows, places, queries, numbers, parts) * scales[places]
  return exact.sum(axis=1).astype(np.float32)


def scaled(
  rows: np.ndarray, scales: np.ndarray | None, parts: Sequence[slice]
) -> np.ndarray:
  """[num_rows, dim] float32 rows, each part multiplied by its scale."""
  if scales is None:
    return rows
  products = np.empty_like(rows)
  for number, part in enumerate(parts):
    np.multiply(rows[:, part], scales[:, [number]], out=products[:, part])
  return products
