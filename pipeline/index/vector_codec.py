"""How projections are stored: float32, bfloat16 or int8, and what that costs.

int8 rounds coordinates that were divided by column scales, the square roots of
the eigenvalues, and then by a scale of the row. In these units all coordinates
count alike for influence, which divides by eigenvalues: rounding p_k itself
would lose the small eigenvalues, where 1 / eigenvalue_k amplifies it. Columns
of layers have what scores divide by unless told otherwise, eigenvalues with the
damping of each layer: those that have hardly any curvature would take all the
range of a row.

The error of a row is measured in the same units, |(p - stored p) / scales|, and
kept with it. By the Cauchy-Schwarz inequality it bounds the error of every
score (`influence_core.scores.rounding`).
"""

from collections.abc import Sequence
from typing import get_args

import ml_dtypes
import numpy as np

from influence_core import damping, errors
from influence_core.subspaces.columns import LayerColumns
from pipeline.index import choices

_INT8_MAX = 127


class VectorCodec:
  """Turns float32 projections into what is stored, and back.

  Attributes:
    dtype: of the stored coordinates.
    projection_dim: coordinates of a row.
    column_scales: [projection_dim] float32, positive.
    file_dtype: numpy type of a row in a file. bfloat16 is stored as its upper
      two bytes, since .npy files know no such type.
  """

  def __init__(
    self,
    dtype: str,
    eigenvalues: np.ndarray,
    layers: Sequence[LayerColumns] = (),
  ):
    """Makes the codec of an index.

    Args:
      dtype: one of `VectorDtype`.
      eigenvalues: [projection_dim], of the basis.
      layers: that columns belong to; empty for none.

    Raises:
      errors.InputError: The dtype is none of those.
    """
    if dtype not in get_args(choices.VectorDtype):
      raise errors.InputError(
        f'vectors are stored as {dtype!r}, expected one of '
        f'{", ".join(get_args(choices.VectorDtype))}'
      )
    self.dtype = dtype
    self.projection_dim = len(eigenvalues)
    self.column_scales = column_scales(eigenvalues, layers)
    values = (self.projection_dim,)
    self.file_dtype = {
      'float32': np.dtype(('<f4', values)),
      'bfloat16': np.dtype(('<u2', values)),
      'int8': np.dtype([('scale', '<f4'), ('values', 'i1', values)]),
    }[dtype]

  @property
  def is_exact(self) -> bool:
    return self.dtype == 'float32'

  def encode(self, vectors: np.ndarray) -> np.ndarray:
    """[num_rows] rows as stored, of [num_rows, projection_dim] float32."""
    if self.dtype == 'float32':
      return np.ascontiguousarray(vectors, '<f4')
    if self.dtype == 'bfloat16':
      return vectors.astype(ml_dtypes.bfloat16).view('<u2')
    scaled = vectors / self.column_scales
    row_scales = np.abs(scaled).max(axis=1, initial=0) / _INT8_MAX
    stored = np.empty(len(vectors), self.file_dtype)
    stored['scale'] = row_scales
    safe = np.where(row_scales > 0, row_scales, 1)
    # Scales that are subnormal numbers are rounded a long way.
    integers = np.rint(scaled / safe[:, None])
    stored['values'] = np.clip(integers, -_INT8_MAX, _INT8_MAX)
    return stored

  def decode(self, stored: np.ndarray) -> np.ndarray:
    """[num_rows, projection_dim] float32, of rows as stored."""
    if self.dtype == 'float32':
      return stored
    if self.dtype == 'bfloat16':
      return stored.view(ml_dtypes.bfloat16).astype(np.float32)
    vectors = stored['values'].astype(np.float32)
    vectors *= stored['scale'][:, None]
    vectors *= self.column_scales
    return vectors

  def rows(self, data: bytes, offset: int = 0) -> np.ndarray:
    """Rows as stored, as a view of the content of a file from `offset` on."""
    flat = np.frombuffer(data, self.file_dtype.base, offset=offset)
    return flat.reshape(-1, *self.file_dtype.shape)

  def error_norms(self, vectors: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """What storing cost each row.

    Args:
      vectors: [num_rows, projection_dim] float32.
      stored: what `encode` made of them.

    Returns:
      [num_rows] float32, |(vectors - decoded) / column_scales|, rounded up.
    """
    difference = vectors.astype(np.float64) - self.decode(stored)
    norms = np.linalg.norm(difference / self.column_scales, axis=1)
    rounded = norms.astype(np.float32)
    return np.where(rounded < norms, np.nextafter(rounded, np.inf), rounded)


def column_scales(
  eigenvalues: np.ndarray, layers: Sequence[LayerColumns] = ()
) -> np.ndarray:
  """[projection_dim] float32: square roots of absolute eigenvalues.

  The smallest positive one stands for those of eigenvalues that are zero. Those
  of layers are damped.
  """
  sizes = np.abs(np.asarray(eigenvalues))
  if layers:
    means = np.array([layer.mean_curvature for layer in layers])
    counts = [layer.count for layer in layers]
    sizes = sizes + np.repeat(damping.OF_LAYERS.amount(means), counts)
  roots = np.sqrt(sizes).astype(np.float32)
  positive = roots[roots > 0]
  return np.where(roots > 0, roots, positive.min() if len(positive) else 1)
