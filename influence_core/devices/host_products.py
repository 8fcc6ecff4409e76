"""Matrix products in host memory."""

import numpy as np


def matmul(one: np.ndarray, other: np.ndarray) -> np.ndarray:
  """`one @ other` without numpy's warnings of invalid values.

  BLAS kernels for short vectors compute on lanes beyond the data too, and now
  and then raise the processor's flag there. Callers look at the results.
  """
  with np.errstate(invalid='ignore', over='ignore'):
    return one @ other
