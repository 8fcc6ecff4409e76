"""What can be chosen of an index, and defaults; it takes no time to import."""

from typing import Literal

from influence_core import errors

VectorDtype = Literal['float32', 'bfloat16', 'int8']
ExportFormat = Literal['parquet', 'npy', 'faiss']

# Part of the examples that may be unusable before a job fails.
MAX_REJECTED_FRACTION = 0.001


def check_rejected_fraction(max_fraction: float) -> None:
  """Raises `errors.InputError` unless it is a fraction."""
  if not 0 <= max_fraction <= 1:
    raise errors.InputError(
      f'max_rejected_fraction is {max_fraction}, expected 0 to 1'
    )
